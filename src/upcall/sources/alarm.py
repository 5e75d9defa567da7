"""Alarms: EV_ALARM at a time, or again and again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..flags import EventType
from ..host import linux, records
from ..kern import const
from . import check

if TYPE_CHECKING:
    import datetime

    from ..host.handle import Handle
    from ..queue import Queue
    from .doors import Host


def when(after: Any, every: Any, at: Any) -> tuple[int, int, int, bool]:
    """SR_BASE, SR_EVERY, SR_FLAGS, and whether the base counts from now."""
    if after is not None and at is not None:
        raise ValueError(f"alarm with after={after!r} and at={at!r}: give one of the two")
    if after is None and every is None and at is None:
        raise ValueError("alarm without a time: give after=, every= or at=")
    period = 0 if every is None else check.seconds("every", every, 0.001)
    if at is None:
        return (period if after is None else check.seconds("after", after, 0)), period, 0, True
    if hasattr(at, "timestamp"):  # a datetime, whose module is not imported for this
        at = at.timestamp()
    return check.seconds("at", at, 0), period, const.ALARM_WALL, False


class Alarm:
    """An alarm of a process, made by `Proc.alarm` and `Remote.alarm`. It belongs to the process and not to who made it:
    any of its workers, and any connection, may cancel it by its `id`, which its events carry as arg3."""

    def __init__(self, host: Host, ident: int, key: int = 0) -> None:
        self._host = host
        self._id = ident
        self._key = key

    @property
    def id(self) -> int:
        """Its number; another one after `reschedule`. 0 for an alarm of a definition that is over."""
        if not self._id and self._key:
            found = [s.id for s in records.all_of(self._host.handle().segment) if s.key == self._key]
            self._id = found[0] if found else 0
        return self._id

    @property
    def active(self) -> bool:
        """Whether it will fire (again)."""
        source = records.read(self._host.handle().segment, self.id)
        return source is not None and source.state != const.SOURCE_SPENT

    def cancel(self) -> bool:
        """It will not fire any more; an event that was sent already is still handled. False if it was over."""
        handle = self._host.handle()
        return records.drop(handle.segment, handle.thread().seg, self.id)

    def reschedule(
        self, *, after: float | None = None, every: float | None = None, at: float | datetime.datetime | None = None
    ) -> None:
        """Another time for it, as for `Proc.alarm`, whether it is over or not. If it is not, the old time is given up for
        the new one in one step: no death leaves both, or none. Errors as for `Proc.alarm`; then it stays as it is."""
        base, period, flags, relative = when(after, every, at)
        handle = self._host.handle()
        old = records.read(handle.segment, self.id)
        if old is not None:
            self._like = (old.type, old.queue, old.value)
        elif not hasattr(self, "_like"):
            raise ValueError(f"alarm {self._id} is over, and was not made here: make another one")
        self._id = make(handle, *self._like, base, period, flags, relative, replaces=0 if old is None else old.id)
        if old is not None:
            records.drop(handle.segment, handle.thread().seg, old.id)

    def _remember(self, type: int, queue: int, value: int) -> Alarm:
        self._like = (type, queue, value)
        return self

    def __repr__(self) -> str:
        return f"<upcall.Alarm {self._id or 'of a definition'}>"


def make(
    handle: Handle, type: int, queue: int, value: int, base: int, period: int, flags: int, relative: bool,
    replaces: int = 0,
) -> int:  # fmt: skip
    """An alarm's record."""
    clock = linux.CLOCK_REALTIME if flags & const.ALARM_WALL else linux.CLOCK_BOOTTIME
    if relative:
        base += time.clock_gettime_ns(clock)
    return records.make(
        handle.segment, handle.thread().seg, const.KIND_ALARM, type=type, queue=queue, flags=flags, value=value,
        base=base, every=period, replaces=replaces,
    )  # fmt: skip


class AlarmDoors:
    """What `Proc` and `Remote` have in common here."""

    def handle(self) -> Handle:
        """The attached segment."""
        raise NotImplementedError

    def alarm(
        self,
        *,
        after: float | None = None,
        every: float | None = None,
        at: float | datetime.datetime | None = None,
        queue: Queue | str | None = None,
        type: str | EventType = EventType.ALARM,
        value: int = 0,
    ) -> Alarm:
        """Sends an event after so many seconds, and then `every` so many, or at a time of the wall clock (`at`: a datetime,
        local if it is naive, or seconds since 1970), never early. `after` and `every` count the time since boot, sleep of
        the machine included, and do not drift; `at` follows the clock when it is set.

        `queue` gets the event; None: the one registered for its type. The event: `arg2` how many periods were missed since
        the one before, and are covered by this one (nobody attended, or the queue was full); `arg3` the alarm's id; `arg4`
        `value`. An alarm lives in the segment: it survives whoever made it, and the supervisor. A stop ends it.

        ValueError, TypeError for times that are none; NoSuchQueue, NoSuchType; SegmentError if there are too many."""
        base, period, flags, relative = when(after, every, at)
        number = check.value_of(value)
        check.check_type(type)
        handle = self.handle()
        kind = check.type_number(handle, type)
        target = check.queue_number(handle, queue, type, "an alarm")
        ident = make(handle, kind, target, number, base, period, flags, relative)
        return Alarm(self, ident)._remember(kind, target, number)
