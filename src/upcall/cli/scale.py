"""`upcall scale`: more vcores, or fewer."""

from __future__ import annotations

import click

from .show import json_option, print_json, progress


@click.command(short_help="Change the number of a process's vcores.")
@click.argument("name")
@click.argument("vcores", type=click.IntRange(1))
@click.option("--keep", is_flag=True, help="Leave private mail of vcores that go where it is.")
@json_option
def scale(name: str, vcores: int, keep: bool, as_json: bool) -> None:
    """Give the process NAME so many VCORES while it runs. Nothing is lost.

    Fewer: workers of the highest vcore ids end after what they have in hand. While private mail waits for one of these
    ids nothing is changed, since nobody else may handle it; with --keep it waits until there are so many vcores again.
    It holds until the process is stopped: its next start has the vcores of its definition.

    \b
    Examples:
      upcall scale ingest 8
      upcall scale ingest 1 --keep
    """
    from ..host.stopping import ask

    done = ask(name, {"do": "scale", "vcores": vcores, "keep": keep}, progress)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{name}: {done['vcores']} vcore{'s' * (done['vcores'] != 1)} (before: {done['before']})")
