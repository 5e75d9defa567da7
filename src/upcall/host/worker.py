"""A vcore's host: a worker process's main thread, or a thread.

The loop: everything there is to do in vcore context (`work`), then user code in uthread context, then `idle`, which looks
a while longer, yields and sleeps. A stop is looked for each time round; a worker that is told to drain leaves when a full
look finds nothing.

The interrupt. Each vcore has a FIFO beside the segment. The worker holds its read end (and a write end, so that it never
sees an end of file), and has the kernel send INTERRUPT to its main thread when a byte arrives. Python then runs
`on_interrupt` between two bytecodes of user code: vcore context on top of uthread context. INTERRUPT is SIGURG, because its
default is to be ignored (a byte that arrives before the handler is there, or after it is gone, kills nobody), it is a
standard signal (many bytes, one signal, as `notif_pending` is one flag), and neither Python nor the common libraries use
it for anything else: SIGIO and the realtime signals kill by default, SIGUSR1 and SIGUSR2 belong to programs.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import struct
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import UpcallError
from ..front.dispatch import Dispatcher
from ..kern import const
from ..kern.layout import slot_record_at, vcpd_at
from ..kern.proc import startcore, unhost_vcore
from ..parlib import vcore as parlib
from ..parlib.mbox import tell_drainers
from ..parlib.recover import announce, host_vcore
from . import fingerprint, forks, tables
from .defined import hold_taps
from .definition import Definition, Program
from .handle import Handle
from .segment import Segment, open_segment
from .settle import tell_watcher
from .signals import SignalThread
from .standby import Standby
from .stops import let_in

if TYPE_CHECKING:
    from .calls import Calls

log = logging.getLogger("upcall")
INTERRUPT = signal.SIGURG
_F_SETOWN_EX, _F_OWNER_TID = 15, 0
_PR_SET_PDEATHSIG = 1
EXIT_HOSTED = 75
"""A worker's exit code: somebody alive hosts its vcore already, or the process has gone on without it."""


class Leave(BaseException):
    """Raised in user code (`Proc.main`) to end it when its vcore has to stop."""


class Report:
    """What goes wrong in handlers, to the log: an exception with its event, a type nobody handles once."""

    def __init__(self, name: str, vcoreid: int) -> None:
        self.who = f"{name}/vcore {vcoreid}"
        self.seen: set[object] = set()

    def failed(self, event: object, error: BaseException) -> None:
        """A handler raised."""
        if isinstance(error, Leave):
            raise error
        lines = "".join(traceback.format_exception(error)).rstrip()
        log.error("%s: handler failed for %r; the event counts as handled\n%s", self.who, event, lines)

    def impostor(self, error: BaseException | None) -> NoReturn:
        """A forked child has come back from a handler."""
        forks.end_child(self.who, error)

    def blocked(self, event: object, handler: object, seconds: float) -> None:
        """A handler has held up its vcore's event loop."""
        log.warning(
            "%s: handler %s held up the event loop for %.0f ms with %r: what blocks belongs in asyncio.to_thread",
            self.who, getattr(handler, "__qualname__", repr(handler)), seconds * 1000, event,
        )  # fmt: skip

    def unhandled(self, event: Any) -> None:
        """Nobody handles this type."""
        if event.type not in self.seen:
            self.seen.add(event.type)
            log.warning("%s: no handler for %r: such events are counted and dropped", self.who, event)

    def corrupt(self, queue: int) -> None:
        """A slot held what no sender writes."""
        if "corrupt" not in self.seen:
            self.seen.add("corrupt")
            log.error("%s: dropped a message that no sender writes (queue number %d)", self.who, queue - 1)

    def dead(self, event: Any, kept: bool) -> None:
        """An event that workers have died with is not delivered again: a dead letter if `kept`."""
        name, _, vcore = self.who.partition("/")
        to = f"of queue {event.queue!r}" if event.queue else f"to {vcore}"
        deaths = f"{event.redeliveries} worker{'s' * (event.redeliveries != 1)} died with it"
        if kept:
            log.warning(
                "%s: event %r %s is a dead letter: %s; upcall dead %s shows it, upcall dead %s --resend sends it again",
                self.who, event.type, to, deaths, name, name,
            )  # fmt: skip
        else:
            log.error("%s: event %r %s is given up, as its queue says: %s; %r", self.who, event.type, to, deaths, event)

    def no_room(self, event: Any) -> None:
        """There is no room to make an event a dead letter."""
        if "no room" not in self.seen:
            self.seen.add("no room")
            log.warning("%s: no room to make %r a dead letter: it stays in hand until there is", self.who, event)


class WorkerHandle(Handle):
    """The process's own segment, as its workers send to it; shared by vcores that are threads of one process."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment, may_register=True)
        self.queue_handlers: dict[int, Any] = {}
        self.calls: dict[int, Calls] = {}
        """By vcore: what is under way on helper threads."""

    def vcore_here(self) -> int | None:
        """The vcore that the calling thread hosts."""
        dispatcher: Dispatcher | None = getattr(self._local, "dispatcher", None)
        return None if dispatcher is None else int(dispatcher.vcoreid)

    def calls_of(self, vcoreid: int) -> Calls:
        """The calls of a vcore that is hosted here."""
        if vcoreid not in self.calls:
            from .calls import Calls

            self.calls[vcoreid] = Calls(self, vcoreid)
        return self.calls[vcoreid]

    def host_here(self, dispatcher: Dispatcher) -> None:
        """The calling thread hosts this vcore from now on, and sends under its name."""
        self.adopt(dispatcher.s)
        self._local.dispatcher = dispatcher

    def may_block(self) -> bool:
        """Not in vcore context: this vcore may be the one that has to make the room."""
        dispatcher: Dispatcher | None = getattr(self._local, "dispatcher", None)
        return super().may_block() and (dispatcher is None or not dispatcher.in_vcore_context)

    def main_here(self, runs: bool) -> None:
        """The calling thread runs a `Proc.main`, in uthread context, or does so no longer."""
        self._local.main = runs

    def check_may_drain(self) -> None:
        """RuntimeError in a handler, whose event would be waited for."""
        dispatcher: Dispatcher | None = getattr(self._local, "dispatcher", None)
        if dispatcher is not None and (dispatcher.in_vcore_context or not getattr(self._local, "main", False)):
            raise RuntimeError(
                f"drain() of {self.name!r} in one of its own handlers would wait for the event of that handler: call it in "
                "Proc.main, or in another process"
            )

    def leave(self) -> None:
        """The vcore that the calling thread hosts ends after what is in hand."""
        self._local.dispatcher.leaving = True

    def queue_handler(self, number: int) -> Any:
        """The handler of queue `number - 1` for types without one of their own."""
        return self.queue_handlers.get(number - 1)


class VCoreHost:
    """One vcore's host, made in the thread that hosts it. `signals`: that is the main thread of a worker process, and can
    be interrupted."""

    def __init__(self, definition: Definition, handle: WorkerHandle, vcoreid: int, *, signals: bool) -> None:
        self.definition = definition
        self.segment = segment = handle.segment
        self.vcoreid = vcoreid
        self.seg = segment.attach(const.ROLE_VCORE)
        self.handle = handle
        self.report = Report(segment.name, vcoreid)
        self.dispatcher = Dispatcher(self.seg, vcoreid, handle, self.report)
        handle.host_here(self.dispatcher)
        self.dispatcher.spin_ns = int(definition.spin_us * 1000)
        self.signals = self.has_fifo = signals
        self.fifo = self.fifo_writer = -1
        self.in_main = False
        self.standby: Standby | None = None
        self.signal_thread: SignalThread | None = None
        self.orphaned: Callable[[], bool] = lambda: False
        self.dispatcher.in_uthread_context = self.in_uthread_context
        self.dispatcher.interrupted = self.interrupted
        self._register()

    def _register(self) -> None:
        for spec in self.definition.queues.values():
            number = self.handle.queue_number(spec.name)
            if spec.handler is not None:
                self.handle.queue_handlers[number] = spec.handler
            if spec.flags & const.EVENT_THREAD:
                self.dispatcher.threads.add(number)
        for item in self.definition.registrations:
            queue = None if item.queue is None else self.handle.queue_number(item.queue) + 1
            number = self.handle.types.get(item.type) or self.handle.resolve(item.type)
            self.dispatcher.handle(queue, number, item.handler, item.batch_max)

    def start(self, late: Callable[[], bool] = lambda: False) -> bool:
        """Hosts the vcore, in vcore context. False if somebody alive does, or if the host, as which it is asked, is too
        `late`."""
        parlib.disable_notifs(self.dispatcher)
        # Before anybody can find us through the vcore.
        at = slot_record_at(self.seg, self.seg.my_slot) + const.AS_DEFINITION
        self.segment.put_u64(at, fingerprint.whole(self.definition))
        if self.has_fifo:
            self._open_fifo()  # before its name says that it is the host: see `open_host`
        if not host_vcore(self.seg, self.vcoreid):
            return False
        if late():
            self.leave()
            return False
        self._be_told()
        parlib.vcore_entry(self.dispatcher)
        return True

    def _open_fifo(self) -> None:
        path = str(self.segment.path / f"vc{self.vcoreid}")
        # Two opens: on one that also writes, our own reading would raise the signal, since it makes room to write.
        self.fifo = self.segment.attachment.open_file(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        self.fifo_writer = self.segment.attachment.open_file(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)

    def _be_told(self) -> None:
        """How this vcore hears of news while it looks for none itself. Only as its host: another one's bytes must not be
        read."""
        if self.signals:
            forks.on_signal(INTERRUPT, self.dispatcher.on_interrupt)
            fcntl.fcntl(self.fifo, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_TID, threading.get_native_id()))
            fcntl.fcntl(self.fifo, fcntl.F_SETSIG, INTERRUPT)
            fcntl.fcntl(self.fifo, fcntl.F_SETFL, fcntl.fcntl(self.fifo, fcntl.F_GETFL) | os.O_ASYNC)

    def interrupted(self, entered: bool) -> None:
        """INTERRUPT, after the news (`Dispatcher.on_interrupt`): the book-keeping. `entered`: user code was interrupted,
        and this is vcore context on top of it; if not, the loop looks at notif_pending by itself before it leaves."""
        self._empty_fifo()
        if not entered:
            return
        bump = vcpd_at(self.seg, self.vcoreid) + const.VCPD_NOTIFS
        self.segment.put_u64(bump, self.segment.u64(bump) + 1)
        self._vcore_context()
        self._leave_main()

    def on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM to this worker: it ends after what is in hand; another is started unless the process stops. The kernel
        sends it too, when the supervisor dies: if this worker is to carry on then, it does."""
        # Both at once are one signal: whoever wants us to leave has written so before.
        asked = self.segment.u64(vcpd_at(self.seg, self.vcoreid) + const.VCPD_LEAVE) == self.seg.me
        if self.standby is not None and not self.standby.begun and self.orphaned():
            self.standby.begin()
            if not asked:
                return
        wanted = (
            self.signal_thread is not None
            and signal.SIGTERM in self.definition.signals
            and not (asked or self.stopping())
        )
        if self.signal_thread is not None and wanted and (self.standby is not None or not self.orphaned()):
            self.signal_thread.note(signal.SIGTERM)
            return
        self.dispatcher.leaving = True
        startcore(self.seg, self.vcoreid)  # if it sleeps: what it sleeps on must change, or it goes on sleeping
        self._leave_main()

    def _leave_main(self) -> None:
        """Ends `Proc.main`, which has no end of its own, when this vcore has to stop."""
        if self.in_main and not self.dispatcher.in_vcore_context and (self.stopping() or self.dispatcher.leaving):
            self.in_main = False
            raise Leave

    def _empty_fifo(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.fifo, 4096)

    def _vcore_context(self) -> None:
        """Works until there is nothing left, then leaves vcore context."""
        while True:
            while parlib.work(self.dispatcher) or self.dispatcher.retry_held():
                pass
            if parlib.leave_vcore_context(self.dispatcher):
                return

    def stopping(self) -> int:
        """0, STOP_DRAIN or STOP_NOW, which every other word counts as: no vcore sleeps while one is there."""
        return min(self.segment.u32(self.seg.procinfo + const.PI_STOP), const.STOP_NOW)

    def in_uthread_context(self, function: Any, *args: Any) -> Any:
        """Runs user code with notifications on; what it returns."""
        self._vcore_context()
        self._leave_main()  # what we were told in vcore context interrupts nobody
        try:
            return function(*args)
        except BaseException as error:
            self.end_forked_child(error)
            raise
        finally:
            self.end_forked_child(None)
            parlib.disable_notifs(self.dispatcher)

    def end_forked_child(self, error: BaseException | None) -> None:
        """Behind user code: whoever comes out of it is this worker, or ends."""
        if self.segment.attachment.forked():
            self.report.impostor(error)

    def run_mains(self) -> None:
        """The program's own user code, before the loop."""
        for function in self.definition.mains:
            if self.stopping():
                return
            self.in_main = True
            self.handle.main_here(True)
            try:
                self.in_uthread_context(function)
            except Leave:
                parlib.disable_notifs(self.dispatcher)
            except Exception:
                log.error(
                    "%s/vcore %d: main failed\n%s", self.segment.name, self.vcoreid, traceback.format_exc().rstrip()
                )
            finally:
                self.in_main = False
                self.handle.main_here(False)

    def run_threads(self) -> int:
        """One event of each THREAD queue, in uthread context."""
        found = 0
        for queue in list(self.dispatcher.active):
            if queue in self.dispatcher.threads:
                found += self.dispatcher.run_thread(queue)
        return found

    def loop(self) -> None:
        """Until a stop: work, user code, sleep."""
        self.run_mains()
        while True:
            stop = self.stopping()
            if stop == const.STOP_NOW:
                return
            if self.dispatcher.leaving:
                self._end_calls()
                return
            if not stop and not self.dispatcher.threads:
                self.dispatcher.turn()
                continue
            found = parlib.work(self.dispatcher)
            if self.dispatcher.threads:
                found += self.run_threads()
            if found:
                continue
            if stop == const.STOP_DRAIN:
                parlib.look_everywhere(self.dispatcher)
                found = parlib.work(self.dispatcher) or self.run_threads() or self.dispatcher.retry_held()
                if not found and not self._call_ends():
                    return
                continue
            self.dispatcher.idle()

    def _call_ends(self) -> bool:
        """Waits for the next of this vcore's calls to end. False if none is under way, or all stop at once."""
        calls = self.handle.calls.get(self.vcoreid)
        return calls is not None and calls.wait(lambda: self.stopping() == const.STOP_NOW)

    def _end_calls(self) -> None:
        """Before this host leaves: nobody else has the results of its calls."""
        while self._call_ends() and self.stopping() != const.STOP_NOW:
            while parlib.handle_mbox(self.dispatcher, self.dispatcher.priv):
                pass  # one at a time, since it is to leave; several may have ended

    def leave(self) -> None:
        """Hosts the vcore no longer: what it answered for is announced to the others."""
        self.dispatcher.give_back()
        parlib.vcore_leave(self.dispatcher)
        unhost_vcore(self.seg, self.vcoreid)
        tell_drainers(self.seg)  # private mail that stays is none of theirs from now on
        if not self.stopping():
            announce(self.seg)

    def finish(self) -> None:
        """Leaves in good order."""
        if self.signal_thread is not None:
            self.signal_thread.end()
        if self.signals and self.fifo >= 0:
            signal.signal(INTERRUPT, signal.SIG_IGN)
        self.leave()
        if self.fifo >= 0:
            self.segment.attachment.close_file(self.fifo)
            self.segment.attachment.close_file(self.fifo_writer)


def host_type(definition: Definition) -> type[VCoreHost]:
    """What hosts the vcores of a process: with `async def` handlers an event loop."""
    if not definition.runs_loop:
        return VCoreHost
    from .loops import LoopHost

    return LoopHost


def worker_process(proc: Program, name: str, vcoreid: int, parent: int) -> int:
    """A worker process's whole life, started by the supervisor `parent`; returns its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the supervisor decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    let_in()
    try:
        segment = open_segment(name)
        host = host_type(proc.definition)(proc.definition, WorkerHandle(segment), vcoreid, signals=True)
        standby = Standby(segment, proc.definition, parent)
        proc._lend_handle(host.handle)
        if not host.start(standby.late):
            return EXIT_HOSTED
    except (UpcallError, FileNotFoundError) as error:
        log.error("%s/vcore %d: cannot start: %s", name, vcoreid, error)
        return 1
    hold_taps(host.handle, proc.definition)
    if proc.definition.signals:
        host.signal_thread = SignalThread(host.handle, proc.definition.signals)
    host.orphaned = standby.orphaned
    if proc.definition.on_supervisor_death == "carry_on":
        host.standby = standby
    forks.on_signal(signal.SIGTERM, host.on_sigterm)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if standby.orphaned():
        host.on_sigterm(signal.SIGTERM, None)  # it has died before we asked to be told
    tell_watcher(segment)
    try:
        host.loop()
    except BaseException as error:
        host.end_forked_child(error)
        raise
    finally:
        host.finish()
        logging.shutdown()
    return 0


def bind_tables(proc: Program, segment: Segment) -> None:
    """Writes a definition's types, queues and kernel events into its segment (the owner does, before any worker)."""
    definition = proc.definition
    seg = segment.attach(const.ROLE_SUPERVISOR)
    try:
        types: dict[str, int] = {}
        for kind in [item.type for item in definition.registrations] + [source.type for source in definition.sources]:
            if isinstance(kind, str):
                tables.register_type(segment, seg, kind, types)
        queues: dict[str, int] = {}
        for spec in definition.queues.values():
            mailbox = -1 if spec.mailbox is None else -2 if spec.mailbox == "vcore" else queues[spec.mailbox]
            tables.register_queue(
                segment, seg, spec.name, flags=int(spec.flags), vcore=spec.vcore, mailbox=mailbox, limit=spec.limit,
                on_full=spec.on_full, on_death=spec.on_death, max_redeliveries=spec.max_redeliveries, known=queues,
            )  # fmt: skip
        for kind, name in definition.kernel_queues.items():
            tables.register_kernel_queue(segment, kind, queues[name])
    finally:
        segment.detach(seg)


def describe_exit(status: int | None) -> str:
    """ "exit code 1", or "signal 9 (SIGKILL)", of a wait status; None: "nobody knows how"."""
    if status is None:
        return "nobody knows how"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(ValueError):  # most realtime signals have no name
            return f"signal {number} ({signal.Signals(number).name})"
        return f"signal {number}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
