"""`upcall send`: events from the command line, one or as many as a file has lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import click

if TYPE_CHECKING:
    from ..queue import Queue
    from ..remote import Remote

CHUNK = 1 << 16
"""Bytes asked of a file at a time; a pipe gives what it has, so that a slow writer's lines do not wait for more."""


@click.command(short_help="Send events to a process.")
@click.argument("name")
@click.argument("queue")
@click.argument("type")
@click.option("--payload", metavar="TEXT", help="The event's payload, sent as UTF-8.")
@click.option("--lines", metavar="FILE", type=click.File("rb"), help="One event for each line of a file; - for stdin.")
@click.option("--arg1", type=click.IntRange(0, 2**16 - 1), default=0, help="16 bits.")
@click.option("--arg2", type=click.IntRange(0, 2**32 - 1), default=0, help="32 bits.")
@click.option("--arg3", type=click.IntRange(0, 2**64 - 1), default=0, help="64 bits.")
@click.option("--arg4", type=click.IntRange(0, 2**64 - 1), default=0, help="64 bits.")
@click.option("--vcore", type=click.IntRange(0), help="The vcore to propose; a queue with VCORE_APPRO prefers it.")
def send(name: str, queue: str, type: str, payload: str | None, lines: BinaryIO | None, **extra: Any) -> None:
    """Send an event of TYPE to QUEUE of the process NAME, running or not.

    When it returns the event will be handled. Lines are sent without their line ends; Ctrl-C stops after the last whole
    group and says how many went.

    \b
    Examples:
      upcall send ingest orders order.created --payload '{"id": 1}'
      upcall send ingest orders order.created --lines access.log
      tail -f access.log | upcall send ingest orders order.created --lines -
    """
    from ..remote import connect

    if payload is not None and lines is not None:
        raise click.UsageError("--payload and --lines exclude each other")
    extra = {what: value for what, value in extra.items() if value}
    with connect(name) as remote:
        if lines is None:
            remote.queue(queue).send(type, (payload or "").encode("utf-8", "surrogateescape"), **extra)
        else:
            sys.exit(stream(remote, remote.queue(queue), type, lines, extra))


def stream(remote: Remote, queue: Queue, type: str, lines: BinaryIO, extra: dict[str, Any]) -> int:
    """Sends every line and says how many went; returns the exit code."""
    from ..errors import UpcallError

    sent = 0
    try:
        for group in groups(lines):
            if extra:
                for line in group:
                    queue.send(type, line, **extra)
                    sent += 1
            else:
                sent += queue.send_many(type, group)
    except KeyboardInterrupt:
        click.echo(f"stopped: {max(sent, counted(remote))} events sent", err=True)
        return 130
    except (UpcallError, ValueError) as error:
        sent += getattr(error, "sent", 0)
        click.echo(f"{sent} events sent before the error", err=True)
        raise
    click.echo(f"{sent} events sent")
    return 0


def counted(remote: Remote) -> int:
    """How many events this thread has sent, by its counter in the segment: exact even if Ctrl-C came between the end of
    a `send_many` and our hearing of it."""
    from ..kern import const
    from ..kern.layout import slot_record_at

    handle = remote.handle()
    seg = handle.thread().seg
    return handle.segment.u64(slot_record_at(seg, seg.my_slot) + const.AS_SENT)


def groups(lines: BinaryIO) -> Iterator[list[bytes]]:
    """The lines of a file without their line ends, in groups as they come."""
    rest: list[bytes] = []
    while chunk := os.read(lines.fileno(), CHUNK):
        if b"\n" not in chunk:
            rest.append(chunk)
            continue
        *whole, last = b"".join([*rest, chunk]).split(b"\n")
        rest = [last]
        yield whole
    if any(rest):
        yield [b"".join(rest)]
