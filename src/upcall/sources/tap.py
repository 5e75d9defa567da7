"""Taps: readiness of file descriptors as events."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any

from ..flags import Ready
from ..host import records
from ..kern import const
from ..kern import source as table

if TYPE_CHECKING:
    from ..host.records import Source
    from .doors import SourceDoors


class Tap:
    """A tapped descriptor. Made by `Proc.tap`, and given to handlers of `Proc.on_tap`, in whatever worker they run.

    `id` its events' arg3; `ready` what it was ready for when the event was sent (READ, WRITE, HANGUP, ERROR); `value` the
    program's own number. The descriptor is a copy: close the tap, and the original by itself.
    """

    def __init__(
        self, proc: SourceDoors, ident: int, ready: int = 0, value: int = 0, once: bool = False, key: int = 0
    ) -> None:
        self._proc = proc
        self._id = ident
        self._key = key
        self.ready = Ready(ready)
        self.value = value
        self.once = once

    @property
    def id(self) -> int:
        """Its number, which its events carry as arg3."""
        if not self._id and self._key:
            found = [s.id for s in records.all_of(self._proc.handle().segment) if s.key == self._key]
            self._id = found[0] if found else 0
        return self._id

    @property
    def closed(self) -> bool:
        """Whether it is closed, by anybody."""
        return not table.source_state(self._proc.handle().segment.seg, self.id)

    def fileno(self) -> int:
        """This process's copy of the descriptor; do not close it. ValueError once the tap is closed."""
        fd = -1 if self.closed else self._proc.handle().passing.get(self.id)
        if fd < 0:
            raise ValueError(f"tap {self._id} is closed")
        return fd

    def rearm(self) -> None:
        """One more event when it is ready (again). ValueError once the tap is closed."""
        if self.closed:
            raise ValueError(f"tap {self._id} is closed")
        self._proc.handle().passing.say({"arm": self.id})

    def close(self) -> None:
        """Ends it: all copies of the descriptor are closed, here at once. Closing it twice is allowed."""
        handle = self._proc.handle()
        records.drop(handle.segment, handle.thread().seg, self.id)
        handle.passing.let_go(self.id)

    def __repr__(self) -> str:
        return f"<upcall.Tap {self._id or 'of a definition'} ready={self.ready!r}>"


class TapHandler:
    """An event's handler that calls a tap's, and arms the tap again."""

    def __init__(self, proc: SourceDoors, handler: Callable[[Tap], object]) -> None:
        self.proc = proc
        self.handler = handler
        self.__qualname__ = getattr(handler, "__qualname__", repr(handler))

    @property
    def __code__(self) -> CodeType | None:
        """The program's own code: what two definitions are compared by."""
        return getattr(self.handler, "__code__", None)

    def __call__(self, ev: Any) -> None:
        tap = self.proc.tapped(ev)
        if tap is None:
            return
        try:
            self.handler(tap)
        finally:
            if not tap.once and not tap.closed:
                tap.rearm()


def of_event(proc: SourceDoors, ev: Any) -> Tap | None:
    """The tap of an event; None if it is closed."""
    source = records.read(proc.handle().segment, ev.arg3)
    return _tap(proc, source, ev.arg1 & 15) if source is not None and source.kind == const.KIND_TAP else None


def taps_of(proc: SourceDoors, type: int) -> list[Tap]:
    """The open taps of a type."""
    sources = records.all_of(proc.handle().segment)
    return [_tap(proc, source) for source in sources if source.kind == const.KIND_TAP and source.type == type]


def _tap(proc: SourceDoors, source: Source, ready: int = 0) -> Tap:
    return Tap(proc, source.id, ready, source.value, bool(source.flags & const.TAP_ONCE))
