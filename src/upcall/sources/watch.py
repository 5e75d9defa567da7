"""Watches: a process's end as an event."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..host import linux, records
from ..kern import const
from . import check

if TYPE_CHECKING:
    from ..flags import EventType
    from ..queue import Queue
    from .doors import SourceDoors


class Watch:
    """A watched process. Made by `Proc.watch`; `id` its event's arg3."""

    def __init__(self, proc: SourceDoors, ident: int, pid: int) -> None:
        self._proc = proc
        self.id = ident
        self.pid = pid

    def cancel(self) -> bool:
        """No event any more. False if it was sent already."""
        handle = self._proc.handle()
        return records.drop(handle.segment, handle.thread().seg, self.id)

    def __repr__(self) -> str:
        return f"<upcall.Watch {self.id} pid={self.pid}>"


def make(proc: SourceDoors, pid: int, queue: Queue | str | None, type: str | EventType, value: int) -> Watch:
    """See `Proc.watch`."""
    if isinstance(pid, bool) or not isinstance(pid, int):
        raise TypeError(f"pid={pid!r} must be an int, not {pid.__class__.__name__}")
    number = check.value_of(value)
    check.check_type(type)
    if pid <= 0:
        raise ValueError(f"pid={pid} is no process's number")
    handle = proc.handle()
    target = check.queue_number(handle, queue, type, "a watch")
    kind = check.type_number(handle, type)
    try:
        since = linux.start_ticks(pid)
    except ProcessLookupError:
        raise ProcessLookupError(3, f"pid {pid}: no such process; one that has ended cannot be watched") from None
    flags = 0
    if linux.parent_of(pid) == os.getpid():
        flags = const.WATCH_CHILD
        handle.passing.ask({"hello": 0})  # from now on the watcher can ask us how it ended
    ident = records.make(
        handle.segment, handle.thread().seg, const.KIND_WATCH, type=kind, queue=target, flags=flags, value=number,
        base=since, pid=pid,
    )  # fmt: skip
    return Watch(proc, ident, pid)
