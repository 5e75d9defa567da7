"""`upcall stop`: ends a process, with or without a supervisor."""

from __future__ import annotations

import click

from .show import json_option, print_json, progress


@click.command(short_help="Stop a process.")
@click.argument("name")
@click.option("--now", is_flag=True, help="Finish what is in hand and leave the rest, whatever the definition says.")
@click.option("--timeout", type=click.FloatRange(0), metavar="S", help="Give up waiting after so many seconds.")
@json_option
def stop(name: str, now: bool, timeout: float | None, as_json: bool) -> None:
    """Stop the process NAME: its workers end after what they have in hand, and handle what waits or leave it for the
    next start, as the definition's `stop` says.

    Works without a supervisor too: workers that carry on without one are stopped in the same way, and handle what waits.
    Past --timeout the process goes on stopping.

    \b
    Examples:
      upcall stop ingest
      upcall stop ingest --now --timeout 5
    """
    from ..host.stopping import stop as end

    done = end(name, "now" if now else None, progress, timeout)
    if as_json:
        print_json(done)
        return
    click.echo(f"{name} stopped" + (f", with {done['left']}: they stay for the next start" if done["left"] else ""))
