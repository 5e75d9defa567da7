"""A many-core process: its definition, and how it is started, stopped and waited for."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Sequence
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .errors import FlagError, ForkedHandle, VCoreIdError
from .flags import WORK_QUEUE, EventFlag, EventType, check_flags
from .host import tables
from .host.definition import Definition, Handler, QueueSpec, Registration, is_async, is_generator
from .host.handle import Handle
from .host.segment import check_name, parse_size
from .host.stops import held
from .kern import const
from .queue import Doors, Queue
from .sources.doors import SourceDoors

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

H = TypeVar("H", bound=Handler)
M = TypeVar("M", bound=Callable[[], object])
ON_FULL = {"block": const.ON_FULL_BLOCK, "raise": const.ON_FULL_RAISE, "bit": const.ON_FULL_BIT}
ON_DEATH = {
    "redeliver": const.ON_DEATH_REDELIVER,
    "dead-letter": const.ON_DEATH_DEAD_LETTER,
    "report": const.ON_DEATH_REPORT,
}
SPIN_US = 20


def _number(name: str, value: float, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}={value!r} must be a number, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name}={value} is outside {least}..{most}")


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None:
        _number("timeout", timeout, -1e9, 1e9)


def _check_handler(of: str, handler: object) -> None:
    if not callable(handler):
        raise TypeError(f"handler {handler!r} of {of} must be callable with one argument")
    _no_generator(f"handler of {of}", handler)


def _no_generator(what: str, function: object) -> None:
    if is_generator(function):
        raise TypeError(f"{what}, {function!r}, has a yield: its events would end before it does; drop the yield")


def _background() -> ModuleType:
    """What runs a process, imported when one is. Ctrl-C waits for that: a compiled module may not stand an exception in the
    middle of its import."""
    with held():
        from .host import background, threads  # noqa: F401

        return background


class Proc(Doors, SourceDoors):
    """A process with several vcores that any other process may send events to. A definition: it creates nothing until
    `run` or `start`.

    `name` how senders find it; `vcores` how many workers (1: a single-core process); `cores` how many of them a backlog may
    bring in (None: all; it is no lock: vcores that are woken at the same moment may be more, and mail to one vcore runs
    that one); `memory` for messages and payloads, sparse
    until used; `host` "process" (a worker process per vcore) or "thread"; `spin_us` how long a vcore with nothing to do
    goes on looking before it sleeps (microseconds; the default is 0 on one core); `preempt_after_ms` how long a vcore may
    sit on pending mail, stopped or in one handler, before others take over (the event in its hands stays with it);
    `on_hang` "wait" until it moves again, or "kill" it when it has not after as long again: the event in its hands is then
    handled again, as after any death; `stop` what a stop does with waiting events: "drain" them, or leave them in the
    segment ("now"); `start_method` "fork" or "spawn" (the program's module is imported anew by each worker; either ends
    without the program's at-exit handlers);
    `on_supervisor_death` what workers do when the process that started them dies: "carry_on" (one of them watches the
    others, until the process is started again, which takes them over), or "stop" after what is in hand.

    With an `async def` among its handlers each vcore runs an event loop, and handlers are its tasks, at most
    `max_concurrent` of them on one vcore (no more is taken from their queues meanwhile); a handler that holds up the loop
    for `slow_callback_ms` is named in the log; `loop` makes another loop than asyncio's, as `uvloop.new_event_loop`.
    """

    def __init__(
        self,
        name: str,
        *,
        vcores: int | None = None,
        cores: int | None = None,
        memory: int | str = "256 MiB",
        host: Literal["process", "thread"] = "process",
        spin_us: float | None = None,
        preempt_after_ms: float = 50,
        stop: Literal["drain", "now"] = "drain",
        start_method: Literal["fork", "spawn"] = "fork",
        on_hang: Literal["wait", "kill"] = "wait",
        on_supervisor_death: Literal["carry_on", "stop"] = "carry_on",
        max_concurrent: int = 100,
        slow_callback_ms: float = 100,
        loop: Callable[[], AbstractEventLoop] | None = None,
    ) -> None:
        check_name(name)
        many = os.cpu_count() or 1
        vcores = many if vcores is None else vcores
        cores = vcores if cores is None else cores
        spin_us = (SPIN_US if many > 1 else 0) if spin_us is None else spin_us
        for what, value in (("vcores", vcores), ("cores", cores), ("max_concurrent", max_concurrent)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{what}={value!r} must be an int, not {type(value).__name__}")
        _number("vcores", vcores, 1, const.MAX_VCORES)
        _number("cores", cores, 1, vcores)
        _number("spin_us", spin_us, 0, 10_000_000)
        _number("preempt_after_ms", preempt_after_ms, 1, 3_600_000)
        _number("max_concurrent", max_concurrent, 1, 1 << 20)
        _number("slow_callback_ms", slow_callback_ms, 1, 3_600_000)
        if loop is not None and not callable(loop):
            raise TypeError(f"loop={loop!r} must be a function that makes an event loop, as uvloop.new_event_loop")
        for what, given, allowed in (
            ("host", host, ("process", "thread")),
            ("stop", stop, ("drain", "now")),
            ("start_method", start_method, ("fork", "spawn")),
            ("on_hang", on_hang, ("wait", "kill")),
            ("on_supervisor_death", on_supervisor_death, ("carry_on", "stop")),
        ):
            if given not in allowed:
                raise ValueError(f"{what}={given!r} must be one of {', '.join(map(repr, allowed))}")
        if host == "thread" and on_hang == "kill":
            raise ValueError("on_hang='kill' with host='thread': a thread cannot be killed; use host='process'")
        self.definition = Definition(
            name,
            vcores,
            cores,
            parse_size(memory),
            host,
            spin_us,
            preempt_after_ms,
            stop,
            start_method,
            on_hang,
            on_supervisor_death,
            max_concurrent=max_concurrent,
            slow_callback_ms=float(slow_callback_ms),
            loop=loop,
        )
        self.name = name
        self._queues: dict[str, Queue] = {}
        self._running: Any = None
        self._pid = 0
        self._handle: Handle | None = None

    # Definition

    def queue(
        self,
        name: str,
        *,
        flags: EventFlag = WORK_QUEUE,
        vcore: int = 0,
        mailbox: str | Queue | None = None,
        handler: Handler | None = None,
        on_full: Literal["block", "raise", "bit"] = "block",
        limit: int | None = None,
        on_death: Literal["redeliver", "dead-letter", "report"] = "redeliver",
        max_redeliveries: int = const.REDELIVERIES_USUAL,
    ) -> Queue:
        """Defines an event queue, or returns the one of this name (ValueError if it was defined with other options).

        `flags` how it delivers (default: a work queue with a mailbox of its own; any vcore may take an event); `vcore` the
        vcore it prefers; `mailbox` another queue, to share its mailbox and its limit, or "vcore" for the vcore's public one;
        `handler` for types without a handler of their own; `on_full` what a sender does without room; `limit` the most
        events that may wait (concurrent senders may exceed it by one each). FlagError if flags contradict each other.

        `on_death` what becomes of an event that was in the hands of a worker when it died (G4): "redeliver" it, to any
        worker, up to `max_redeliveries` times (0..14), then it is a dead letter (see `Remote.dead_letters`); "dead-letter"
        at once; or "report" it: the log names it, and it is gone.
        """
        if name in self._queues and (flags, vcore, mailbox, handler, on_full, limit, on_death, max_redeliveries) == (
            WORK_QUEUE, 0, None, None, "block", None, "redeliver", const.REDELIVERIES_USUAL,
        ):  # fmt: skip
            return self._queues[name]
        self._must_not_run("queue")
        tables.check_queue_name(name)
        if not isinstance(flags, EventFlag):
            raise TypeError(
                f"flags={flags!r} must be EventFlag, for example EventFlag.IPI | EventFlag.INDIR | EventFlag.FALLBACK"
            )
        shared = self._shared(name, mailbox)
        check_flags(flags, own_mailbox=shared not in (None, "vcore"))
        no_own = bool(flags & (EventFlag.SPAM_PUBLIC | EventFlag.VCORE_PRIVATE))
        if no_own and shared not in (None, "vcore"):
            raise FlagError(f"queue {name!r}: {flags!r} uses a vcore's mailbox, mailbox={shared!r} names another")
        if EventFlag.INDIR in flags and shared == "vcore":
            raise FlagError(f"queue {name!r}: INDIR with mailbox='vcore': a vcore's own mail needs no indirection")
        if isinstance(vcore, bool) or not isinstance(vcore, int) or not 0 <= vcore < self.definition.vcores:
            raise VCoreIdError(
                f"vcore {vcore!r} of {self.name!r} (it has {self.definition.vcores}: 0 to {self.definition.vcores - 1})"
            )
        if handler is not None:
            _check_handler(f"queue {name!r}", handler)
        if not isinstance(on_full, str) or on_full not in ON_FULL:
            raise ValueError(f"on_full={on_full!r} must be one of 'block', 'raise', 'bit'")
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit < 1 << 64):
            raise ValueError(f"limit={limit!r} must be an int from 1 to 2**64-1, or None")
        if limit is not None and (no_own or shared is not None):
            raise ValueError(f"limit={limit} of queue {name!r}: a limit needs a mailbox of its own")
        if on_death not in ON_DEATH:
            raise ValueError(f"on_death={on_death!r} must be one of 'redeliver', 'dead-letter', 'report'")
        if on_death != "redeliver" and EventFlag.NOMSG in flags:
            raise FlagError(
                f"queue {name!r}: a {EventFlag.NOMSG!r} queue has bits, which are always delivered again: "
                f"drop the flag or on_death={on_death!r}"
            )
        if isinstance(max_redeliveries, bool) or not isinstance(max_redeliveries, int):
            raise TypeError(
                f"max_redeliveries={max_redeliveries!r} must be an int, not {builtins.type(max_redeliveries).__name__}"
            )
        _number("max_redeliveries", max_redeliveries, 0, const.REDELIVERIES_MAX)
        spec = QueueSpec(
            name,
            flags,
            vcore,
            "vcore" if no_own else shared,
            handler,
            ON_FULL[on_full],
            limit or 0,
            ON_DEATH[on_death],
            max_redeliveries,
        )
        return self._define_queue(spec)

    def _shared(self, name: str, mailbox: str | Queue | None) -> str | None:
        """Whose mailbox a queue is to have, of those with one of their own; "vcore", or None: its own."""
        shared = mailbox.name if isinstance(mailbox, Queue) else mailbox
        if shared is None or shared == "vcore":
            return shared
        spec = self.definition.queues.get(shared) if isinstance(shared, str) else None
        if spec is None:
            raise ValueError(f"mailbox={shared!r} of queue {name!r}: define that queue first, or use 'vcore'")
        if spec.mailbox == "vcore":
            raise ValueError(f"mailbox={shared!r} of queue {name!r}: that queue has no mailbox of its own; use 'vcore'")
        return spec.mailbox or shared

    def _define_queue(self, spec: QueueSpec) -> Queue:
        queues = self.definition.queues
        if queues.get(spec.name, spec) != spec:
            raise ValueError(
                f"queue {spec.name!r} of {self.name!r} is defined already, with other options: use another name"
            )
        if spec.name not in queues:
            if len(queues) == const.MAX_QUEUES:
                raise ValueError(
                    f"queue {spec.name!r}: {self.name!r} has {len(queues)} already, as many as a process can have"
                )
            queues[spec.name] = spec
            self._queues[spec.name] = Queue(self, spec.name)
        return self._queues[spec.name]

    def kernel_queue(self, kind: EventType, queue: Queue | str) -> None:
        """Registers a queue for a kernel event; without one such events are dropped, by choice of the process."""
        if not isinstance(kind, EventType):
            raise TypeError(f"kernel event {kind!r} must be an EventType")
        self._must_not_run("kernel_queue")
        self.definition.kernel_queues[kind] = self._queue_name(queue)

    def on(self, type: str | EventType, *, queue: Queue | str | None = None) -> Callable[[H], H]:
        """Registers a handler for an event type, in one queue or (None) wherever it arrives. It is called with the
        event, in vcore context (uthread context for a THREAD queue)."""
        return self._register(type, queue, 0)

    def on_batch(self, type: str | EventType, max: int = 1024, *, queue: Queue | str | None = None) -> Callable[[H], H]:
        """Registers a handler that is called with a sequence of up to `max` events of this type, in the order taken. While
        they come fast a batch waits some microseconds for more; one event alone does not."""
        if isinstance(max, bool) or not isinstance(max, int):
            raise TypeError(f"max={max!r} must be an int, not {builtins.type(max).__name__}")
        _number("max", max, 1, 1 << 20)
        return self._register(type, queue, max)

    def main(self, function: M) -> M:
        """Registers user code that every vcore runs, in uthread context, when it starts. Handlers may run before it and
        on top of it: what they need must be there already. `async def`: a task of the vcore's event loop, cancelled when the
        vcore stops."""
        self._must_not_run("main")
        if not callable(function):
            raise TypeError(f"main {function!r} must be callable with no arguments")
        _no_generator("main", function)
        self.definition.mains.append(function)
        return function

    def _register(self, type: str | EventType, queue: Queue | str | None, batch_max: int) -> Callable[[H], H]:
        self._must_not_run("on")
        if not isinstance(type, EventType):
            tables.check_type_name(type)
        where = None if queue is None else self._queue_name(queue)

        def register(handler: H) -> H:
            _check_handler(repr(type), handler)
            self.definition.registrations.append(Registration(type, where, handler, batch_max))
            return handler

        return register

    def _queue_name(self, queue: Queue | str) -> str:
        name = queue.name if isinstance(queue, Queue) else queue
        if name not in self.definition.queues:
            known = ", ".join(sorted(self.definition.queues)) or "none"
            raise ValueError(f"queue {name!r} is not defined (defined: {known})")
        return name

    def _defining(self) -> bool:
        return self._running is None and self._handle is None

    def _must_not_run(self, what: str) -> None:
        if not self._defining():
            raise RuntimeError(f"Proc.{what} of {self.name!r}: it runs already; define everything before it starts")

    # Life

    def run(self) -> None:
        """Runs the process in the foreground until it is stopped. SIGINT and SIGTERM: finish what is in hand, then drain
        or leave the rest, as `stop` says; a second one ends it at once: a worker in a handler is killed, a thread in one
        is left to itself. NameInUse if it runs already."""
        self._must_not_run("run")
        self._check_start_method()
        _background().run_here(self)

    def start(self) -> Proc:
        """Starts the process in the background and returns when every vcore runs. NameInUse if it runs already."""
        self._must_not_run("start")
        self._check_start_method()
        self._running = _background().start_child(self)
        self._pid = os.getpid()
        return self

    def _check_start_method(self) -> None:
        self._check_mains()
        if self.definition.start_method == "spawn" and self.definition.host == "process":
            with held():  # Ctrl-C in an import may come where Python has to ignore what it raises
                from .host.spawn import check_importable, home

            check_importable(self)
            home(self)

    def _check_mains(self) -> None:
        if self.definition.runs_loop:
            for function in self.definition.mains:
                if not is_async(function):
                    raise TypeError(
                        f"main {function!r} of {self.name!r} would keep its vcore from running the event loop that its "
                        "async def handlers need: make it async def too"
                    )

    def stop(self, stop: Literal["drain", "now"] | None = None, timeout: float | None = None) -> None:
        """Stops it: "drain" handles what waits, "now" leaves it in the segment, for the next start; None as defined.
        TimeoutError past `timeout` seconds: it is still stopping."""
        _check_timeout(timeout)
        if self._running is None:
            return
        self._check_not_forked()
        if stop not in (None, "drain", "now"):
            raise ValueError(f"stop={stop!r} must be 'drain', 'now' or None")
        self._running.stop(stop or self.definition.stop, timeout)
        self._close_handle()
        self._running = None
        self._pid = 0

    def restart(self, kill_after: float | None = None) -> int:
        """Replaces the workers of the running process, one by one, and returns how many: each ends after what it has in
        hand, or is killed after `kill_after` seconds. UpcallError if a new worker does not start (the others are left as
        they are), if nobody supervises the process, or if its vcores are threads."""
        done: int = self._ask({"do": "restart", "kill_after": kill_after})["restarted"]
        return done

    def scale(self, vcores: int, keep: bool = False) -> None:
        """So many vcores from now on, until it is stopped. Fewer: the workers of the highest ids end after what they have
        in hand. SegmentError, and nothing changed, while private mail waits for an id that would go (`keep`: it stays
        there), if a queue sends to such a vcore, or if the segment has no room for so many. UpcallError as for
        `restart`."""
        if isinstance(vcores, bool) or not isinstance(vcores, int):
            raise TypeError(f"vcores={vcores!r} must be an int, not {builtins.type(vcores).__name__}")
        _number("vcores", vcores, 1, const.MAX_VCORES)
        self._ask({"do": "scale", "vcores": vcores, "keep": bool(keep)})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        from .host.stopping import ask

        self.handle()  # it runs here
        return ask(self.name, request, lambda line: None)

    def drain(self, timeout: float | None = None) -> list[int]:
        """Returns when every event sent so far has been handled. Private mail of vcores that nobody hosts is left out:
        the list names those vcores. TimeoutError past `timeout` seconds. RuntimeError in a handler: its own event is not
        handled before it returns."""
        from .host.drain import drain

        _check_timeout(timeout)
        handle = self.handle()
        handle.check_may_drain()
        return drain(handle, timeout)

    def __enter__(self) -> Proc:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid == os.getpid():  # a forked child leaves the block too
            self.stop()

    def handle(self) -> Handle:
        """The attached segment of the running process."""
        self._check_not_forked()
        if self._handle is None:
            from .host.segment import open_segment

            if self._running is None:
                raise RuntimeError(
                    f"process {self.name!r} does not run here: start() it, or upcall.connect({self.name!r})"
                )
            self._handle = Handle(open_segment(self.name), may_register=True)
        return self._handle

    def _check_not_forked(self) -> None:
        """ForkedHandle in a child of the process that started it, or of a worker."""
        if self._pid not in (0, os.getpid()):
            raise ForkedHandle(
                f"process {self.name!r} belongs to process {self._pid}, this is its forked child {os.getpid()}: "
                f"upcall.connect({self.name!r}) here"
            )

    def _lend_handle(self, handle: Handle) -> None:
        """In a worker: the process's own queues send under the vcore's name."""
        self._pid = os.getpid()
        for queue in self._queues.values():
            queue._unbind()
        self._handle = handle

    def _close_handle(self) -> None:
        for queue in self._queues.values():
            queue._unbind()
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    @property
    def queues(self) -> Sequence[str]:
        """The names of the queues defined."""
        return sorted(self.definition.queues)

    def __repr__(self) -> str:
        return f"<upcall.Proc {self.name!r} vcores={self.definition.vcores}>"
