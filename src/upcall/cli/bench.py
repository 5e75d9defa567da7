"""`upcall bench`, the command."""

from __future__ import annotations

from typing import Any

import click

from .show import json_option, print_json


def _names(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


@click.command(short_help="Measure what an event costs here, beside its peers.")
@click.option("--rows", metavar="ROW,...", default="", callback=_names, help="Only these rows of the table.")
@click.option("--systems", metavar="SYSTEM,...", default="", callback=_names, help="Only these systems.")
@click.option(
    "--scale", type=click.FloatRange(0.001, 100), default=1.0, show_default=True, help="Less is shorter and less exact."
)
@click.option("--list", "only_list", is_flag=True, help="Show the rows and the systems, and measure nothing.")
@json_option
def bench(rows: list[str], systems: list[str], scale: float, only_list: bool, as_json: bool) -> None:
    """Measure what an event costs on this machine, beside the same job done with everything else that is here.

    Each row is one job, done by every system in turn in fresh processes pinned to one CPU each. Medians, p99, how many
    times better upcall is than each peer, and whether the bars are met. The full run takes some minutes: leave the
    machine alone meanwhile. Progress goes to stderr.

    \b
    Examples:
      upcall bench
      upcall bench --scale 0.1
      upcall bench --rows send-message,roundtrip-parked
      upcall bench --rows send-bit --systems upcall,eventfd
      upcall bench --json > bench.json
      upcall bench --list
    """
    from ..bench import run

    if only_list:
        _show_list(run, as_json)
        return
    code = run.run(rows, systems, scale=scale, as_json=as_json)
    if code:
        raise SystemExit(code)


def _show_list(run: Any, as_json: bool) -> None:
    from ..bench.sample import ROWS
    from .show import console, table

    systems = {name: system.available() for name, system in run.systems().items()}
    if as_json:
        print_json({"rows": {row.name: row.what for row in ROWS.values()}, "systems": systems})
        return
    out = console()
    out.print(table("Rows", ["row", "unit", "what"], [(row.name, row.unit, row.what) for row in ROWS.values()]))
    out.print(table("Systems", ["system", "here"], [(name, why or "yes") for name, why in systems.items()]))
