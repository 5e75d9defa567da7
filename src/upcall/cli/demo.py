"""`upcall demo`: the main job, on real input."""

from __future__ import annotations

import click

from .show import json_option


@click.command(short_help="Count the words of the standard library, every line an event.")
@click.option("--files", type=click.IntRange(1), help="Only so many source files (default: all).")
@click.option("--vcores", type=click.IntRange(1, 1024), default=4, show_default=True, help="Worker processes.")
@click.option("--peers/--no-peers", default=True, help="The same job with multiprocessing beside it.")
@click.option("--kill", is_flag=True, help="Kill a worker 4 times a second meanwhile (no comparison then).")
@json_option
def demo(files: int | None, vcores: int, peers: bool, kill: bool, as_json: bool) -> None:
    """Count the words of the Python standard library's source files: every line is an event.

    Two sender processes feed a process with 4 vcores; at the end its counts are compared with those of a plain loop
    over the same files. Exit code 1 if they differ: also with --kill they must not.

    \b
    Examples:
      upcall demo
      upcall demo --files 100 --no-peers
      upcall demo --kill
      upcall demo --json
    """
    from ..demo import run

    raise SystemExit(run(files, vcores, peers=peers, kill=kill, as_json=as_json))
