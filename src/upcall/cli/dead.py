"""`upcall dead`: events that workers have died with: list, read, re-send, discard."""

from __future__ import annotations

import base64
import dataclasses
from typing import TYPE_CHECKING, Any

import click

from .show import console, json_option, print_json, table

if TYPE_CHECKING:
    from ..host.dead import DeadLetter
    from ..remote import Remote


@click.command(short_help="List, read, re-send or discard events that workers died with.")
@click.argument("name")
@click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(1))
@click.option("--queue", metavar="QUEUE", help="Only those of this queue.")
@click.option("--payload", is_flag=True, help="Show the payloads, too (in JSON as base64).")
@click.option("--resend", is_flag=True, help="Send them again, to where they were sent first.")
@click.option("--discard", is_flag=True, help="Throw them away.")
@json_option
def dead(
    name: str, ids: tuple[int, ...], queue: str | None, payload: bool, resend: bool, discard: bool, as_json: bool
) -> None:
    """Show the dead letters of the process NAME, running or not: events in whose handlers workers died again and again.
    All of them, or those with these IDs.

    An event is a dead letter when 1 + `max_redeliveries` workers have died with it, or at once, as its queue says
    (`on_death`). It stays until it is re-sent or discarded, over stops and starts of the process. Re-sent, it is an event
    like any other. Whoever is killed while it re-sends loses none, and may send one twice.

    \b
    Examples:
      upcall dead ingest
      upcall dead ingest 17 --payload
      upcall dead ingest --queue orders --resend
      upcall dead ingest 17 18 --discard
      upcall dead ingest --json --payload
    """
    from ..remote import connect

    if resend and discard:
        raise click.UsageError("--resend and --discard exclude each other")
    with connect(name) as remote:
        letters = pick(remote, ids, queue, payload)
        if resend or discard:
            done = settle(remote, letters, resend=resend)
            if as_json:
                print_json({"resent" if resend else "discarded": done})
            else:
                click.echo(f"{done} dead letter{'s' * (done != 1)} {'re-sent' if resend else 'discarded'}")
        elif as_json:
            print_json([to_json(letter, payload) for letter in letters])
        else:
            show(name, letters, payload)


def pick(remote: Remote, ids: tuple[int, ...], queue: str | None, payload: bool) -> list[DeadLetter]:
    """The letters asked for. ClickException for an id that none of them has."""
    found = {letter.id: letter for letter in remote.dead_letters(queue, payload=payload)}
    if missing := [number for number in ids if number not in found]:
        where = f"{remote.name!r}" + (f", queue {queue!r}" if queue else "")
        raise click.ClickException(f"no dead letter {', '.join(map(str, missing))} in {where}: upcall dead lists them")
    return [found[number] for number in dict.fromkeys(ids)] if ids else list(found.values())


def settle(remote: Remote, letters: list[DeadLetter], *, resend: bool) -> int:
    """Re-sends or discards; says how many went if there was an error."""
    from ..errors import UpcallError

    if not resend:
        return remote.discard(letters)
    try:
        return remote.resend(letters)
    except UpcallError as error:
        click.echo(f"{getattr(error, 'sent', 0)} dead letters re-sent before the error", err=True)
        raise


def to_json(letter: DeadLetter, payload: bool) -> dict[str, Any]:
    """A letter as plain values; its payload only if it was asked for."""
    values = dataclasses.asdict(letter)
    values["payload"] = base64.b64encode(letter.payload).decode() if payload else None
    return values


def show(name: str, letters: list[DeadLetter], payload: bool) -> None:
    """A line per letter; then the payloads."""
    if not letters:
        click.echo("no dead letters")
        return
    rows = [
        (one.id, to(one), one.type, one.deaths, one.size, one.arg1, one.arg2, one.arg3, one.arg4) for one in letters
    ]
    columns = ("#id", "sent to", "type", "#deaths", "#bytes", "#arg1", "#arg2", "#arg3", "#arg4")
    console().print(table("", columns, rows))
    for one in letters if payload else ():
        click.echo(click.style(f"{one.id}: {one.type}, {one.size} bytes", bold=True))
        click.echo(readable(one.payload))


def readable(payload: bytes) -> str:
    """Bytes as text that a terminal only shows: control characters, and what is no text, as escapes."""
    text = payload.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def to(letter: DeadLetter) -> str:
    """Where an event was sent."""
    if letter.queue is not None:
        return letter.queue
    return f"vcore {letter.vcore}" + (", private" if letter.private else "")
