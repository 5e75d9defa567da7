"""`upcall restart`: a rolling restart."""

from __future__ import annotations

import click

from .show import json_option, print_json, progress


@click.command(short_help="Replace a process's workers, one by one.")
@click.argument("name")
@click.option(
    "--kill-after",
    type=click.FloatRange(0, 1e6),
    metavar="SECONDS",
    help="Kill a worker that has not ended so long after it was asked to. Its event is handled again.",
)
@json_option
def restart(name: str, kill_after: float | None, as_json: bool) -> None:
    """Replace the workers of the process NAME, one after the other: each ends after what it has in hand, and the next
    one's turn comes when the new one is online. Nothing is lost, and events are handled meanwhile.

    A worker that hangs or is stopped is waited for, unless the definition says on_hang="kill", or --kill-after does.
    Workers are forked from the supervisor as it is: for a new version of the program stop it and run it anew (spawned
    workers, start_method="spawn", import the program's module anew).

    \b
    Examples:
      upcall restart ingest
      upcall restart ingest --kill-after 10
    """
    from ..host.stopping import ask

    done = ask(name, {"do": "restart", "kill_after": kill_after}, progress)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{name}: {done['restarted']} worker{'s' * (done['restarted'] != 1)} replaced")
