"""`upcall clean`: removes what dead processes have left."""

from __future__ import annotations

import click

from .show import json_option, print_json


@click.command(short_help="Remove segments that nobody attends.")
@click.option("--discard", is_flag=True, help="Remove those in which events wait, too, and damaged ones.")
@json_option
def clean(discard: bool, as_json: bool) -> None:
    """Remove segments that nobody attends and in which nothing waits, and what starts that were killed have left.

    A segment in which events wait stays: start its process again and they are handled. Segments that somebody living is
    attached to always stay.

    \b
    Examples:
      upcall clean
      upcall clean --discard
    """
    from ..inspect import clean as remove

    found = remove(discard)
    if as_json:
        print_json([one.to_json() for one in found])
        return
    for one in found:
        lost = f", {one.lost} events lost" if one.removed and one.lost else ""
        click.echo(f"{'removed' if one.removed else 'kept'} {one.name}: {one.why}{lost}")
    if not found:
        click.echo("nothing to clean")
