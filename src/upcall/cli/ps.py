"""`upcall ps`: processes, vcores, states, mailbox depths, counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .show import console, json_option, print_json, table

if TYPE_CHECKING:
    from ..inspect import ProcessInfo


@click.command(short_help="List processes, or show one in full.")
@click.argument("name", required=False)
@json_option
def ps(name: str | None, as_json: bool) -> None:
    """List all processes, or show NAME with its vcores, queues, sources (alarms, taps, watches, calls, signals) and
    attached threads.

    Reads the segments without the processes' help: it works when they are stuck, stopped or dead. A process without a
    supervisor has no pid: its workers may carry on, but those that die are not replaced. Started again it takes them over,
    or handles what waits if nobody is left. A vcore is FAILING when its worker dies at its start again and again.

    \b
    Examples:
      upcall ps
      upcall ps ingest
      upcall ps --json
    """
    from ..inspect import snapshot, snapshots

    found = list(snapshots()) if name is None else [snapshot(name)]
    if as_json:
        print_json([process.to_json() for process in found])
    elif name is not None:
        show_one(found[0])
    else:
        show_all(found)


def state(process: ProcessInfo) -> str:
    """The process's state; that of one that nobody attends or watches is what it was last."""
    if process.attended or process.error:
        return process.state
    return f"{process.state} ({'no supervisor' if process.watcher else 'unattended'})"


def online(process: ProcessInfo) -> int:
    """How many vcores run now."""
    return sum(vcore.state == "ONLINE" for vcore in process.vcores)


def mib(process: ProcessInfo) -> str:
    """Memory of the segment that is in use, in MiB."""
    return f"{process.memory_bytes / 2**20:.1f}"


def show_all(found: list[ProcessInfo]) -> None:
    """A line per process."""
    if not found:
        click.echo("no processes")
        return
    dead = any(p.dead for p in found)
    rows = [
        (
            p.name,
            state(p),
            p.pid,
            f"{online(p)}/{len(p.vcores)}",
            p.waiting,
            *([p.dead] if dead else []),
            p.total("handled"),
            p.total("errors"),
            mib(p),
        )
        for p in found
    ]
    letters = ["#dead"] if dead else []
    columns = ("name", "state", "#pid", "#online", "#waiting", *letters, "#handled", "#errors", "#MiB")
    console().print(table("", columns, rows))
    for process in found:
        if process.error:
            click.echo(f"{process.name}: {process.error}")
        if process.dead:
            click.echo(f"{process.name}: {dead_letters(process)}")


def dead_letters(process: ProcessInfo) -> str:
    """How many there are, and the command that shows them."""
    return f"{process.dead} dead letter{'s' * (process.dead != 1)} (upcall dead {process.name})"


def show_one(process: ProcessInfo) -> None:
    """Everything about one process."""
    out = console()
    pid = f"pid {process.pid}, " if process.pid else ""
    click.echo(f"{process.name}: {state(process)}, {pid}{process.waiting} waiting, {mib(process)} MiB")
    if process.watcher:
        click.echo(f"no supervisor: worker {process.watcher} watches the others until upcall run takes them over")
    if process.error:
        click.echo(f"damaged: {process.error}")
    if process.dead:
        click.echo(dead_letters(process))
    vcores = [
        (v.id, v.pid, v.state, v.pending, v.handled, v.wakeups, v.notifs, v.errors, v.unhandled, v.restarts)
        for v in process.vcores
    ]
    columns = ("#vcore", "#pid", "state", "#pending", "#handled", "#wakeups", "#interrupts", "#errors", "#unhandled")
    out.print(table("vcores", (*columns, "#restarts"), vcores))
    queues = [(q.name, q.depth, q.dead, q.limit, q.on_full, q.flags, q.alert) for q in process.queues]
    out.print(table("queues", ("queue", "#depth", "#dead", "#limit", "on_full", "flags", "told"), queues))
    if process.sources:
        sources = [
            (
                s.id,
                s.kind,
                s.what,
                "-" if s.due_in is None else f"{s.due_in:.1f}",
                s.queue,
                s.type,
                s.value,
                s.pid,
                s.events,
            )
            for s in process.sources
        ]
        heads = ("#source", "kind", "waits for", "#due in s", "queue", "type", "#value", "#pid", "#events")
        out.print(table("sources", heads, sources))
    slots = [(s.slot, s.pid, s.role, s.sent, s.indirs, s.wakes, s.waits, s.syscalls) for s in process.slots if s.alive]
    titles = ("#slot", "#pid", "role", "#sent", "#indirections", "#wakes", "#waits", "#syscalls")
    out.print(table("attached", titles, slots))
