"""The watcher's end of alarms, taps, watches, calls and signals: one epoll, and an event for what happens.

Whoever has the watcher's role has one: the supervisor in its loop, without it the worker that watches, in its helper
thread. `fileno()` is readable when there is something to `run`; `look` is called when the watcher has been told of
something, or somebody has died. What there is to attend is read in the segment (kern/source); only a tap's descriptor
cannot lie there: it comes through a socket beside the segment (host/passing), from each process that holds a copy.

A tap is armed for one readiness: its event is in a handler's hands then, and the handler's end arms it again. Without room
for an event its source stays as it is, and is tried again: an alarm counts the periods, a tap is not armed, signals add
up. The room's futex cannot be waited for in an epoll; hence the pauses, which double.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import MailboxBusy, MailboxFull, ProcessGone, UpcallError
from ..flags import EventFlag, EventType
from ..kern import const
from ..kern import source as table
from ..kern.pages import name_is_dead
from . import linux, records
from .deadcalls import how_it_ended, tell_of_death
from .handle import Handle
from .records import Source
from .segment import Segment
from .settle import pid_of
from .tables import queue_flags
from .wire import Link, listen

log = logging.getLogger("upcall")
RETRY_NS, RETRY_MAX_NS = 10_000_000, 1_000_000_000
PATIENCE_NS = 5_000_000_000
"""How long a new watcher waits for somebody to pass a tap's descriptor, before it says that nobody has it any more."""


class _Quiet(Handle):
    """Sends, and never waits for room."""

    def may_block(self) -> bool:
        return False


class Sources:
    """Attends the sources of one process. `socket_name`: where descriptors are passed to it."""

    def __init__(self, segment: Segment, socket_name: str, signals: Iterable[int] = ()) -> None:
        self.segment = segment
        self.handle = _Quiet(segment)
        self.seg = self.handle.thread().seg
        self.epoll = select.epoll()
        self.ready: dict[int, Callable[[int], object]] = {}
        self.seen = -1
        self.off = False
        self.alarms: dict[int, Source] = {}
        self.taps: dict[int, int] = {}
        self.wanted: dict[int, tuple[list[Link], int]] = {}
        """Taps that somebody asks for and nobody has passed yet: who, and until when (ns) they are waited for."""
        self.watches: dict[int, int] = {}
        self.asked: dict[int, Link] = {}
        """Watches that have ended: whom we have asked for the status."""
        self.late: dict[object, Callable[[], bool]] = {}
        self.pause = RETRY_NS
        self.retry_at = 0
        self.signalled: Counter[int] = Counter()
        self.signals: dict[int, int] = {}
        """The sources that count them, by number."""
        self.links: list[Link] = []
        self.boot = linux.Timer(linux.CLOCK_BOOTTIME)
        self.wall = linux.Timer(linux.CLOCK_REALTIME)
        for timer in (self.boot, self.wall):
            self._when(timer.fd, functools.partial(self._ring, timer))
        self.signal_fd = -1
        numbers = set(signals) - {signal.SIGINT, signal.SIGTERM}
        if numbers:
            self.signal_fd = linux.open_signals(numbers)
            self._when(self.signal_fd, self._signals_came)
        self.listener = listen(segment.path, socket_name)
        self._when(self.listener.fileno(), self._accept)

    def _when(self, fd: int, do: Callable[[int], object], mask: int = select.EPOLLIN) -> None:
        self.epoll.register(fd, mask)
        self.ready[fd] = do

    def _forget(self, fd: int) -> None:
        del self.ready[fd]
        self.epoll.unregister(fd)

    def fileno(self) -> int:
        """Readable when there is something to `run`."""
        return self.epoll.fileno()

    def run(self) -> None:
        """Does what is ready, without waiting."""
        for fd, mask in self.epoll.poll(0):
            do = self.ready.get(fd)
            if do is not None:
                do(mask)
        self.look()

    def _stopped(self) -> bool:
        """A process that stops sends itself nothing more."""
        if not self.off and self.segment.u32(self.seg.procinfo + const.PI_STOP):
            self.off = True
            self.late.clear()
            self.boot.set(None)
            self.wall.set(None)
        return self.off

    def look(self) -> None:
        """Reads the table again if it has changed, and sets the timers."""
        if self._stopped():
            return
        seen = table.source_changes(self.seg)
        if seen != self.seen:
            self.seen = seen  # before the walk: what changes meanwhile is walked over again
            self._walk()
        self._set_timers()

    def somebody_died(self) -> None:
        """Looks at everything again: what the dead one was doing is ours."""
        self.seen = -1
        self.look()

    # The table

    def _walk(self) -> None:
        found = {source.id: source for source in records.all_of(self.segment)}
        for source in found.values():
            if source.replaces in found:
                table.drop_source(self.seg, source.replaces)  # who made this one has died before it could
        self.alarms = {i: s for i, s in found.items() if s.kind == const.KIND_ALARM and s.state != const.SOURCE_SPENT}
        for ident in [ident for ident in self.taps if ident not in found]:
            self._drop_tap(ident)
        for ident in [ident for ident in self.watches if ident not in found]:
            self._drop_watch(ident)
        for source in found.values():
            if source.kind == const.KIND_WATCH and source.id not in self.watches:
                self._try(source.id, functools.partial(self._begin_watch, source.id))
            elif source.kind == const.KIND_SIGNAL:
                self.signals[source.value] = source.id
            elif source.kind == const.KIND_CALL and source.id not in self.late and name_is_dead(self.seg, source.maker):
                how = how_it_ended(source.pid)
                if how is not None:
                    self._try(source.id, functools.partial(tell_of_death, self.handle, source, how))

    def _set_timers(self) -> None:
        wall: list[int] = []
        boot = [self.retry_at] if self.late else []
        for ident, source in self.alarms.items():
            if ident not in self.late:
                (wall if source.flags & const.ALARM_WALL else boot).append(source.due)
        boot += [until for _, until in self.wanted.values()]
        self.boot.set(min(boot, default=None))
        self.wall.set(min(wall, default=None))

    # Sending

    def _send(self, source: Source, arg1: int = 0, arg2: int = 0, arg3: int = 0) -> bool:
        """Sends a source's event. False without room. What no queue wants is dropped, by choice of the process."""
        queue = source.queue
        if not queue and source.type < const.MAX_NR_EVENT:
            queue = self.segment.u32(self.seg.procinfo + const.PI_KERNEL_EVTS + 4 * source.type)
        if not queue:
            return True
        kind: Any = EventType(source.type) if source.type in set(EventType) else self.handle.type_name(source.type)
        try:
            sender = self.handle.sender(queue - 1)
            if queue_flags(self.segment, queue - 1) & EventFlag.NOMSG:
                sender.send(kind)
            else:
                sender.send(kind, arg1=arg1, arg2=min(arg2, 0xFFFFFFFF), arg3=arg3 or source.id, arg4=source.value)
        except (MailboxFull, MailboxBusy):
            return False
        except ProcessGone:
            pass
        except (UpcallError, IndexError) as error:
            log.error("%s: cannot send the event of %s %d: %s",
                      self.segment.name, records.KINDS.get(source.kind), source.id, error)  # fmt: skip
        return True

    def _try(self, key: object, do: Callable[[], bool]) -> None:
        """Does something now, or when there is room."""
        if self._stopped() or do():
            self.late.pop(key, None)
            return
        if not self.late:
            self.pause, self.retry_at = RETRY_NS, linux.boot_ns() + RETRY_NS
        self.late[key] = do

    def _retry(self) -> None:
        before = len(self.late)
        for key, do in list(self.late.items()):
            self._try(key, do)
        self.pause = RETRY_NS if len(self.late) < before else min(2 * self.pause, RETRY_MAX_NS)
        self.retry_at = linux.boot_ns() + self.pause

    # Alarms

    def _ring(self, timer: linux.Timer, mask: int) -> None:
        timer.take()
        if self._stopped():
            return
        now = time.clock_gettime_ns(timer.clock)
        if timer is self.boot:
            if self.late and self.retry_at <= now:
                self._retry()
            self._give_up(now)
        wall = timer is self.wall
        for ident, source in list(self.alarms.items()):
            if bool(source.flags & const.ALARM_WALL) == wall and source.due <= now and ident not in self.late:
                self._try(ident, functools.partial(self._fire, ident))

    def _fire(self, ident: int) -> bool:
        """Sends the event of an alarm that is due. False to be called again."""
        if not table.begin_firing(self.seg, ident):
            # Cancelled; or another watcher that lives is about it, and will have moved it on.
            source = records.read(self.segment, ident)
            return self._keep(ident, source)
        # Read when it is ours: its count is right.
        source = records.read(self.segment, ident)
        if source is None:
            return self._keep(ident, None)
        clock = linux.CLOCK_REALTIME if source.flags & const.ALARM_WALL else linux.CLOCK_BOOTTIME
        late = time.clock_gettime_ns(clock) - source.due
        over = 0
        if late >= 0:
            periods = late // source.every + 1 if source.every else 1
            over = periods if self._send(source, arg2=periods - 1) else 0
        after = const.SOURCE_SET
        if over and not source.every:
            after = const.SOURCE_SPENT if source.key else const.SOURCE_FREE
        table.end_firing(self.seg, ident, over, after)
        self._keep(ident, records.read(self.segment, ident) if after == const.SOURCE_SET else None)
        return over > 0 or late < 0

    def _keep(self, ident: int, source: Source | None) -> bool:
        """Goes on with an alarm as it is now. True if it need not be tried again at once."""
        if source is None or source.state == const.SOURCE_SPENT:
            self.alarms.pop(ident, None)
            return True
        self.alarms[ident] = source
        return source.state == const.SOURCE_SET

    # Signals

    def _signals_came(self, mask: int) -> None:
        for number in linux.take_signals(self.signal_fd):
            self.signal(number)

    def signal(self, number: int) -> None:
        """A signal has come to this process."""
        self.signalled[number] += 1
        self._try(("signal", number), functools.partial(self._signal, number))

    def _signal(self, number: int) -> bool:
        source = Source(0, 0, const.KIND_SIGNAL, const.EV_POSIX_SIGNAL, *(0,) * 10, "")
        while self.signalled[number]:
            if not self._send(source, arg1=number):
                return False
            self.signalled[number] -= 1
            table.add_count(self.seg, self.signals.get(number, 0), 1)
        return True

    # Taps

    def tap(self, ident: int, fd: int) -> str:
        """Attends a descriptor, which is ours from now on: "", or what is wrong with it."""
        source = records.read(self.segment, ident)
        if source is None or ident in self.taps or self.off:
            os.close(fd)  # closed meanwhile; or somebody else's copy came first
            return "" if ident in self.taps else "it was closed meanwhile"
        try:
            self._when(fd, functools.partial(self._tap_ready, ident), self._mask(source))
        except OSError as error:
            os.close(fd)
            return str(error)
        self.taps[ident] = fd
        for link in self.wanted.pop(ident, ([], 0))[0]:
            self._say(link, {"get": ident}, fd)
        return ""

    @staticmethod
    def _mask(source: Source) -> int:
        mask = select.EPOLLIN | select.EPOLLRDHUP if source.flags & const.TAP_READ else 0
        mask |= select.EPOLLOUT if source.flags & const.TAP_WRITE else 0
        return mask | select.EPOLLONESHOT

    def _tap_ready(self, ident: int, mask: int) -> None:
        ready = 0
        for bit, flag in (
            (select.EPOLLIN, const.TAP_READ),
            (select.EPOLLOUT, const.TAP_WRITE),
            (select.EPOLLHUP | select.EPOLLRDHUP, const.TAP_HANGUP),
            (select.EPOLLERR, const.TAP_ERROR),
        ):
            if mask & bit:
                ready |= flag
        self._try(ident, functools.partial(self._say_ready, ident, ready))

    def _say_ready(self, ident: int, ready: int) -> bool:
        source = records.read(self.segment, ident)
        if source is None:
            return True  # closed: the next walk finds it
        if not self._send(source, arg1=ready):
            return False
        table.add_count(self.seg, ident, 1)
        return True

    def _arm(self, ident: int) -> None:
        source = records.read(self.segment, ident)
        if source is not None and ident in self.taps and ident not in self.late:
            self.epoll.modify(self.taps[ident], self._mask(source))

    def _drop_tap(self, ident: int) -> None:
        fd = self.taps.pop(ident)
        self.late.pop(ident, None)
        self._forget(fd)
        os.close(fd)
        for link in list(self.links):
            self._say(link, {"gone": ident})

    def _give_up(self, now: int) -> None:
        for ident, (links, until) in list(self.wanted.items()):
            if until <= now:
                del self.wanted[ident]
                log.warning("%s: tap %d: all who had its descriptor are dead", self.segment.name, ident)
                records.drop(self.segment, self.seg, ident)
                for link in links:
                    self._say(link, {"get": ident, "error": "gone"})

    # Watches

    def _begin_watch(self, ident: int) -> bool:
        """Watches a process, or says at once that it has ended. False to be called again."""
        source = records.read(self.segment, ident)
        if source is None:
            return True
        pidfd = -1
        try:
            if not 0 < source.pid < 1 << 31:
                raise ProcessLookupError
            pidfd = os.pidfd_open(source.pid)
            if linux.start_ticks(source.pid) != source.base:
                raise ProcessLookupError
        except OSError as error:
            if pidfd >= 0:
                os.close(pidfd)
            if isinstance(error, ProcessLookupError):
                return self._exited(ident, None)
            if ident not in self.late:  # no descriptors left, and nobody tells when there are
                log.error("%s: cannot watch pid %d yet: %s", self.segment.name, source.pid, error)
            return False
        self.watches[ident] = pidfd
        self._when(pidfd, functools.partial(self._ended, source))
        return True

    def _drop_watch(self, ident: int) -> None:
        pidfd = self.watches.pop(ident)
        self.asked.pop(ident, None)
        if pidfd in self.ready:
            self._forget(pidfd)
        os.close(pidfd)

    def _ended(self, source: Source, mask: int) -> None:
        """A process has ended. Its parent can tell how: ourselves, or who made the watch."""
        self._forget(self.watches[source.id])
        maker = pid_of(self.segment, source.maker) if source.flags & const.WATCH_CHILD else 0
        for link in self.links:
            if maker and link.pid == maker:
                self.asked[source.id] = link
                self._say(link, {"status": source.id, "pid": source.pid})
                return
        self._try(source.id, functools.partial(self._exited, source.id, linux.exit_status(source.pid)))

    def _exited(self, ident: int, status: int | None) -> bool:
        source = records.read(self.segment, ident)
        if source is None:
            return True
        if not table.begin_firing(self.seg, ident):
            return False  # another watcher is about it; if it dies before it has sent, it is ours
        sent = self._send(source, arg1=int(status is not None), arg2=status or 0)
        table.end_firing(self.seg, ident, int(sent), const.SOURCE_FREE if sent else const.SOURCE_SET)
        return sent

    # Those who pass descriptors

    def _accept(self, mask: int) -> None:
        if not self._take_in():
            # The listener would stay readable, and keep us busy for nothing.
            self._forget(self.listener.fileno())
            self._try("accept", self._accept_again)

    def _accept_again(self) -> bool:
        if not self._take_in():
            return False
        self._when(self.listener.fileno(), self._accept)
        return True

    def _take_in(self) -> bool:
        """One who has connected. False if there is no descriptor left for it."""
        try:
            link = Link(self.listener.accept()[0])
        except OSError as error:
            return error.errno not in (errno.EMFILE, errno.ENFILE)  # else it is gone again
        self.links.append(link)
        self._when(link.fileno(), functools.partial(self._read, link))
        return True

    def _read(self, link: Link, mask: int) -> None:
        try:
            while (got := link.receive()) is not None:
                self._do(link, *got)
        except OSError:
            self._lose(link)

    def _do(self, link: Link, said: dict[str, Any], fds: list[int]) -> None:
        match said:
            case {"tap": int() as ident} if len(fds) == 1:
                error = self.tap(ident, fds.pop())
                if not said.get("again"):
                    self._say(link, {"tap": ident, "error": error})
            case {"tap": int() as ident}:
                self._say(link, {"tap": ident, "error": "the watcher has no descriptors left: raise ulimit -n"})
            case {"get": int() as ident}:
                self._get(link, ident)
            case {"arm": int() as ident}:
                self._arm(ident)
            case {"status": int() as ident, "is": (int() | None) as status} if self.asked.pop(ident, None):
                self._try(ident, functools.partial(self._exited, ident, status))
            case {"hello": _}:
                self._say(link, {"hello": 0})
        for fd in fds:
            os.close(fd)

    def _get(self, link: Link, ident: int) -> None:
        if ident in self.taps:
            self._say(link, {"get": ident}, self.taps[ident])
        elif records.read(self.segment, ident) is None:
            self._say(link, {"get": ident, "error": "gone"})
        else:
            links, until = self.wanted.get(ident, ([], linux.boot_ns() + PATIENCE_NS))
            self.wanted[ident] = ([*links, link], until)

    def _say(self, link: Link, said: dict[str, Any], *fds: int) -> None:
        try:
            if link in self.links:
                link.send(said, *fds)
        except OSError:
            self._lose(link)  # gone, or does not read: it comes again

    def _lose(self, link: Link) -> None:
        if link not in self.links:
            return
        self.links.remove(link)
        self._forget(link.fileno())
        link.close()
        for ident in [ident for ident, other in self.asked.items() if other is link]:
            del self.asked[ident]
            self._try(ident, functools.partial(self._exited, ident, None))

    # The end

    def close(self) -> None:
        """Attends nothing any more. Those who hold copies of descriptors find out, and pass them to the next one."""
        self.close_in_child()
        self.ready.clear()
        self.late.clear()
        self.handle.give_back_name()

    def close_in_child(self) -> None:
        """Closes all descriptors; in a forked worker, where a copy would keep a connection up."""
        for link in self.links:
            link.close()
        self.listener.close()
        for fd in (*self.taps.values(), *self.watches.values(), self.signal_fd):
            if fd >= 0:
                os.close(fd)
        self.boot.close()
        self.wall.close()
        self.epoll.close()
