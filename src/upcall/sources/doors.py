"""The methods of `Proc` that make sources."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import FlagError
from ..flags import EventFlag, EventType, Ready
from ..host import records
from ..host.deadcalls import died_in_call
from ..host.definition import Definition, SourceSpec
from ..kern import const
from . import check
from .alarm import Alarm, AlarmDoors, when
from .tap import Tap, TapHandler, of_event, taps_of
from .watch import Watch
from .watch import make as make_watch

if TYPE_CHECKING:
    from ..front.event import Event
    from ..host.handle import Handle
    from ..queue import Queue

T = TypeVar("T", bound=Callable[[Tap], object])
CO_COROUTINE = 0x80
"""What `inspect` calls so; it is slow to import."""
NEVER = {
    signal.SIGKILL: "nobody can catch it",
    signal.SIGSTOP: "nobody can catch it",
    signal.SIGURG: "it is upcall's own interrupt",
    signal.SIGSEGV: "it says that the program is broken",
    signal.SIGBUS: "it says that the program is broken",
    signal.SIGFPE: "it says that the program is broken",
    signal.SIGILL: "it says that the program is broken",
}


class Host(Protocol):
    """What has a segment, once there is one."""

    def handle(self) -> Handle:
        """The attached segment."""


class SourceDoors(AlarmDoors):
    """Signals, alarms, taps, watches and calls of a `Proc`."""

    definition: Definition
    name: str

    def _defining(self) -> bool:
        """Whether it has not been started."""
        raise NotImplementedError

    def signals(self, *numbers: int, queue: Queue | str | None = None) -> None:
        """Has these signals sent as events, EventType.POSIX_SIGNAL with the number as `arg1`, whether they come to the
        supervisor or to a worker. Before the start.

        `queue` gets them, and is registered for the type; None: the one that is registered, or a queue "signals".
        Realtime signals come each one; of others that wait the kernel keeps one, so at least one event follows the last.
        SIGTERM and SIGINT do not end the process any more if they are named here (`Proc.stop` and `upcall stop` do; a
        worker still ignores SIGINT). The others are blocked in the process, and in programs that its handlers start.

        With host="thread" the process must be `run`, in the main thread, which blocks them for all its vcores; threads of
        the program that were there before have to block them too.

        ValueError for a number that is no signal's, or cannot be had; with host="thread" SIGTERM and SIGINT neither."""
        if not self._defining():
            raise RuntimeError(f"Proc.signals of {self.name!r}: it runs already; define everything before it starts")
        if not numbers:
            raise ValueError("signals without a number: name some, for example signal.SIGHUP")
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or number not in signal.valid_signals():
                raise ValueError(f"{number!r} is not a signal's number: use signal.SIGHUP and the like")
            if number in NEVER:
                raise ValueError(f"{signal.Signals(number).name} cannot be an event: {NEVER[signal.Signals(number)]}")
            if self.definition.host == "thread" and number in (signal.SIGTERM, signal.SIGINT):
                raise ValueError(
                    f"{signal.Signals(number).name} cannot be an event with host='thread': nothing else could stop the "
                    "process; use host='process'"
                )
        name = self._registered(EventType.POSIX_SIGNAL, queue, "signals")
        if EventFlag.NOMSG in self.definition.queues[name].flags:
            raise FlagError(f"queue {name!r}: a {EventFlag.NOMSG!r} queue cannot say which signal came; drop the flag")
        self.definition.signals.extend(n for n in map(int, numbers) if n not in self.definition.signals)

    def _registered(self, kind: EventType, queue: Queue | str | None, usual: str) -> str:
        """The queue that is registered for a kernel event, now."""
        if queue is None:
            name = self.definition.kernel_queues.get(kind)
            if name is not None:
                return name
            queue = self.queue(usual)
        self.kernel_queue(kind, queue)
        return self.definition.kernel_queues[kind]

    if TYPE_CHECKING:

        def queue(self, name: str) -> Queue: ...
        def kernel_queue(self, kind: EventType, queue: Queue | str) -> None: ...
        def on(self, type: str | EventType, *, queue: Queue | str | None = None) -> Callable[[Any], Any]: ...
        def _queue_name(self, queue: Queue | str) -> str: ...

    def alarm(
        self,
        *,
        after: float | None = None,
        every: float | None = None,
        at: Any = None,
        queue: Queue | str | None = None,
        type: str | EventType = EventType.ALARM,
        value: int = 0,
    ) -> Alarm:
        if not self._defining():
            return super().alarm(after=after, every=every, at=at, queue=queue, type=type, value=value)
        base, period, flags, relative = when(after, every, at)
        check.check_type(type)
        number = check.value_of(value)
        if queue is None and type == EventType.ALARM:
            self._registered(EventType.ALARM, None, "alarms")
        name = self._target(queue, type, "an alarm")
        key = self._define(SourceSpec(const.KIND_ALARM, type, name, flags, number, base, period, relative))
        return Alarm(self, 0, key)

    alarm.__doc__ = AlarmDoors.alarm.__doc__

    def _target(self, queue: Queue | str | None, kind: str | EventType, what: str) -> str | None:
        if queue is not None:
            return self._queue_name(queue)
        if not isinstance(kind, EventType) or kind not in self.definition.kernel_queues:
            raise ValueError(f"{what} without queue=: name the queue that gets its events")
        return None

    def _define(self, spec: SourceSpec) -> int:
        from ..host import fingerprint

        self.definition.sources.append(spec)
        return fingerprint.of_source(self.definition, len(self.definition.sources) - 1)

    def tap(
        self,
        fd: Any,
        ready: Ready = Ready.READ,
        *,
        queue: Queue | str | None = None,
        type: str | EventType = "tap",
        once: bool = False,
        value: int = 0,
    ) -> Tap:
        """Sends an event when a descriptor (an int, or what has a `fileno()`) is ready: a socket, pipe, FIFO, eventfd,
        terminal. `ready`: Ready.READ, Ready.WRITE or both; `type` is the event's, for a handler of `on_tap`; `queue` gets
        it.

        While its event waits or is handled there is no other one. When the handler of `on_tap` has returned it is looked
        at again, so what is still ready is said again; with `once`, after `Tap.rearm` only. A copy of the descriptor is
        kept by this process and by the watcher, others get theirs in their handlers: any of them may die. Close the tap to
        let the descriptor go.

        The event: `arg1` what it is ready for, HANGUP and ERROR included; `arg3` the tap's id; `arg4` `value`. ValueError
        for a regular file, OSError for what is not open, UpcallError if the watcher has no room for it."""
        number = fd if isinstance(fd, int) and not isinstance(fd, bool) else getattr(fd, "fileno", lambda: None)()
        if not isinstance(number, int) or isinstance(fd, bool):
            raise TypeError(f"fd={fd!r} must be a descriptor's number, or have a fileno()")
        if not isinstance(ready, int) or not 0 < ready <= Ready.READ | Ready.WRITE:
            raise ValueError(f"ready={ready!r} must be Ready.READ, Ready.WRITE or both")
        check.check_type(type)
        own = check.value_of(value)
        if number < 0:
            raise ValueError(f"fd {number}: it is closed")
        copy = _copy(number)
        flags = int(ready) | (const.TAP_ONCE if once else 0)
        try:
            if self._defining():
                name = self._target(queue, type, "a tap")
                key = self._define(SourceSpec(const.KIND_TAP, type, name, flags, own, fd=copy))
                return Tap(self, 0, value=own, once=once, key=key)
            handle = self.handle()
            target = check.queue_number(handle, queue, type, "a tap")
            kind = check.type_number(handle, type)
            seg = handle.thread().seg
            ident = records.make(
                handle.segment, seg, const.KIND_TAP, type=kind, queue=target, flags=flags, value=own, tell=False
            )
        except BaseException:
            os.close(copy)
            raise
        try:
            handle.passing.hold(ident, copy)
        except BaseException:
            records.drop(handle.segment, seg, ident)
            raise
        return Tap(self, ident, value=own, once=once)

    def on_tap(self, type: str | EventType = "tap", *, queue: Queue | str | None = None) -> Callable[[T], T]:
        """Registers a handler of taps: it is called with the `Tap`, and the tap is looked at again when it returns or
        raises. A tap that was closed meanwhile is passed over."""

        def register(handler: T) -> T:
            if not callable(handler):
                raise TypeError(f"handler {handler!r} of {type!r} must be callable with one argument")
            if getattr(getattr(handler, "__code__", None), "co_flags", 0) & CO_COROUTINE:
                raise TypeError(
                    f"handler {handler!r} of {type!r} is async: use proc.on and proc.tapped, and rearm the tap"
                )
            self.on(type, queue=queue)(TapHandler(self, handler))
            return handler

        return register

    def tapped(self, ev: Event) -> Tap | None:
        """The tap of an event, for handlers of `on`: they call `Tap.rearm` by themselves. None if it is closed."""
        return of_event(self, ev)

    def taps(self, type: str | EventType = "tap") -> list[Tap]:
        """The taps of a type that are open now, whoever has made them, oldest places first: to write to all connections,
        for example."""
        check.check_type(type)
        handle = self.handle()
        return taps_of(self, check.type_number(handle, type))

    def watch(
        self, pid: int, *, queue: Queue | str | None = None, type: str | EventType = "exit", value: int = 0
    ) -> Watch:
        """Sends an event when a process ends, any that may be seen, a child or not. While the process runs.

        The event: `arg1` 1 if its status is known, and then `arg2` the status as `os.waitpid` gives it (for
        `os.waitstatus_to_exitcode`); `arg3` the watch's id; `arg4` `value`. Known is that of a child of the one who calls
        this, while that one lives and has not waited for it; the child is not reaped, that is its parent's.

        ProcessLookupError if there is no such process; TypeError, ValueError, NoSuchQueue as for `alarm`."""
        return make_watch(self, pid, queue, type, value)

    def call(self, function: Callable[..., object], *args: Any, value: int = 0, **options: Any) -> int:
        """Has a helper thread call a function that blocks (a file, a name server), in a handler or `main`. Its end is an
        event, EventType.SYSCALL, private to this vcore, whose handler gets the result from `result`; the id that is
        returned is the event's `arg3`, `value` its `arg4`, and the function's name its payload.

        If this worker dies meanwhile the event comes all the same, to the next host of the vcore, and says so. A worker
        that is to end waits for its calls, unless it is stopped "now". RuntimeError outside a vcore; SegmentError if there
        are too many."""
        if not callable(function):
            raise TypeError(f"function {function!r} must be callable")
        number = check.value_of(value)
        handle: Any = self.handle()
        vcoreid = handle.vcore_here() if hasattr(handle, "vcore_here") else None
        if vcoreid is None:
            raise RuntimeError(
                f"Proc.call of {self.name!r}: call it in a handler or in main, in the vcore's own thread"
            )
        ident: int = handle.calls_of(vcoreid).begin(function, args, options, number)
        return ident

    def result(self, ev: Event) -> Any:
        """What the call has returned whose end this event is; its exception is raised. WorkerDied if its worker has died;
        ValueError for another event, or the second time."""
        if getattr(ev, "type_number", None) != const.EV_SYSCALL:
            raise ValueError(f"{ev!r} is not the end of a call")
        handle: Any = self.handle()
        what = bytes(ev.payload).decode(errors="replace")
        if ev.arg1 == const.CALL_DONE:
            found = handle.calls_of(ev.vcore).take(ev.arg3)
            if found is not None:
                value, error = found
                if error is not None:
                    raise error
                return value
            if ev.arg2 == os.getpid():
                raise ValueError(f"the result of call {ev.arg3}, {what}, has been taken")
        raise died_in_call(self.name, what, ev.arg2, ev.arg1)


def _copy(fd: int) -> int:
    """A copy of a descriptor that can be tapped. OSError, ValueError."""
    from ..host.passing import check_pollable

    try:
        copy = os.dup(fd)
    except OSError as error:
        raise OSError(error.errno, f"fd {fd}: {error.strerror}") from None
    try:
        check_pollable(copy)
    except BaseException:
        os.close(copy)
        raise
    return copy
