"""`upcall bench`: what an event costs here, beside its peers."""

from __future__ import annotations

import click

from .show import json_option


@click.command(short_help="Measure what an event costs here, beside its peers.")
@click.argument("rows", nargs=-1, metavar="[ROW]...")
@click.option("--scale", type=click.FloatRange(0.001, 100), default=1.0, help="Less is shorter and less exact.")
@json_option
def bench(rows: tuple[str, ...], scale: float, as_json: bool) -> None:
    """Measure all rows of the table, or those named, on this machine, in one run.

    \b
    Examples:
      upcall bench
      upcall bench send-message roundtrip-parked
      upcall bench --json > bench.json
    """
    import importlib

    runner = importlib.import_module("upcall.bench.run")
    raise SystemExit(runner.run(rows, scale=scale, as_json=as_json))
