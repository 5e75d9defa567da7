"""`upcall dump`: the protocol's own words, decoded."""

from __future__ import annotations

from typing import Any

import click

from .show import console, json_option, print_json, table, text


@click.command(short_help="Show the protocol's own words of a process, decoded.")
@click.argument("name")
@json_option
def dump(name: str, as_json: bool) -> None:
    """Show what the segment of NAME says, word by word: header, procinfo, vcores, queues, mailboxes, pages, attach
    slots, arena. For finding out why a process stands still; docs/segment.md tells what each word means.

    \b
    Examples:
      upcall dump ingest
      upcall dump ingest --json
    """
    from ..inspect import dump as read

    words = read(name)
    if as_json:
        print_json(words)
        return
    for part, value in words.items():
        show_part(part, value)


def show_part(part: str, value: Any) -> None:
    """A part as lines or, where it is a list of records, as a table."""
    if isinstance(value, list):
        show_records(part, value)
        return
    click.echo(click.style(part, bold=True))
    lists = {key: inner for key, inner in value.items() if isinstance(inner, list)}
    for key, inner in value.items():
        if key not in lists:
            click.echo(f"  {key:16} {text(inner)}")
    for key, inner in lists.items():
        show_records(f"{part} {key}", inner)
    click.echo()


def show_records(title: str, records: list[dict[str, Any]]) -> None:
    """Records as a table; those of one list need not all have the same fields."""
    if not records:
        click.echo(f"{title}: none\n")
        return
    columns = list(dict.fromkeys(key for record in records for key in record))
    rows = [[record.get(column) for column in columns] for record in records]
    numbers = {c for c in columns if all(isinstance(r.get(c), int | None) for r in records)}
    out = console()
    made = table(title, [f"#{c}" if c in numbers else c for c in columns], rows)
    # A wide record is read better down than across: nothing is cut off.
    if out.measure(made).minimum <= out.width and len(columns) <= 12:
        out.print(made)
        return
    click.echo(click.style(title, bold=True))
    for record in records:
        click.echo("  " + "  ".join(f"{key}={text(value)}" for key, value in record.items()))
    click.echo()
