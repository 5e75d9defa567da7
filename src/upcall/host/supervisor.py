"""The supervisor: makes or adopts the segment, forks a worker per vcore, starts new ones for those that died, stops them.

It holds attach slot 0: whoever has its lock attends the process. Workers are watched through pidfds, so nothing is
polled: the supervisor sleeps in one `select` on them, on the signals that stop it, on its starter's pidfd if it has one,
and on the time of the next restart.

When a worker dies: its vcore is NOHOST from then on, what it held is settled (`recover_vcore`), what waits is announced
to the others, and a new worker is forked, at once the first time and then after doubling pauses, up to BACKOFF_MAX_S.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import NameInUse, NoSuchProcess, SegmentError, UpcallError
from ..front import port
from ..kern import const
from ..kern.layout import map_at, slot_record_at, vcpd_at
from ..kern.pages import bury_name
from ..kern.proc import startcore, unhost_vcore
from ..parlib.mbox import has_bits, recover_mbox, waiting_in
from ..parlib.recover import announce, mail_waits, recover_vcore
from . import segment as files
from .dead import count_letters
from .definition import Program
from .segment import Geometry, Segment
from .slots import SUPERVISOR_SLOT
from .stops import StopSignals, held, let_in
from .watch import Watcher
from .worker import bind_tables, describe_exit, worker_process

log = logging.getLogger("upcall")
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 5.0
STEADY_S = 10.0
"""A worker that lived so long has started well: its next restart is at once."""
GIVE_UP = 8
"""So many deaths in a row, each before STEADY_S: reported, and tried at BACKOFF_MAX_S from then on."""


def open_for_owner(proc: Program) -> Segment:
    """The segment of a starting process, attended by us: a new one, or an unattended one with what waits in it."""
    name, definition = proc.name, proc.definition
    while True:
        try:
            segment = files.open_segment(name)
        except NoSuchProcess:
            # Attended from its first moment: nobody can clean it up, or start it, between its making and its start.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                segment = files.create(name, Geometry.for_memory(definition.vcores, definition.memory), attended=True)
                return _taken_over(proc, segment)
            continue
        if not _attend(segment):
            pid = segment.u32(slot_record_at(segment.seg, SUPERVISOR_SLOT) + const.AS_PID)
            segment.close()
            raise NameInUse(f"process {name!r} runs already (pid {pid}): stop it first, or use another name")
        # Somebody may have removed the file between our open and our lock: then it is not the one that others find.
        if files.is_in_place(segment):
            return _taken_over(proc, segment)
        segment.close()


def _attend(segment: Segment) -> bool:
    """Takes the supervisor's slot. False if a living one has it."""
    with segment.slots.in_turn(), contextlib.suppress(SegmentError):
        segment.attend()
    return segment.supervisor is not None


def _taken_over(proc: Program, segment: Segment) -> Segment:
    try:
        _take_over(proc, segment, segment.supervisor)
    except BaseException:
        finish(segment, segment.supervisor)
        segment.close()
        raise
    return segment


def _take_over(proc: Program, segment: Segment, supervisor: Any) -> None:
    """Settles what a former run has left, and writes this run's definition."""
    definition, info = proc.definition, segment.seg.procinfo
    if definition.vcores > segment.geometry.max_vcores:
        raise SegmentError(
            f"vcores={definition.vcores}, but the segment that {proc.name!r} left has room for "
            f"{segment.geometry.max_vcores}: start it with fewer, or remove it with upcall clean --discard"
        )
    files.make_fifos(segment)
    for v in range(segment.geometry.max_vcores):
        unhost_vcore(supervisor, v)
        recover_vcore(supervisor, v, segment.u64(vcpd_at(segment.seg, v) + const.VCPD_HOST))
    segment.put_u64(info + const.PI_NUM_VCORES, definition.vcores)
    segment.put_u64(info + const.PI_CORES, definition.cores)
    segment.put_u64(info + const.PI_SPIN_NS, int(definition.spin_us * 1000))
    segment.put_u64(info + const.PI_PREEMPT_NS, int(definition.preempt_after_ms * 1e6))
    segment.put_u32(info + const.PI_STOP, 0)
    segment.put_u32(info + const.PI_SUPERVISOR_PID, os.getpid())
    segment.put_u64(info + const.PI_SUPERVISOR, supervisor.me)
    bind_tables(proc, segment)
    epoch = (segment.u64(info + const.PI_STATE) >> 8) + 1
    segment.put_u64(info + const.PI_STATE, const.P_CREATED | epoch << 8)


def something_waits(segment: Segment, seg: Any) -> int:
    """How many mailboxes hold events that nobody has handled."""
    of_vcores, boxes = 2 * seg.max_vcores, segment.seg.nr_mboxes
    waiting = sum(bool(mail_waits(seg, box)) for box in range(of_vcores))
    return waiting + sum(bool(waiting_in(seg, box, 0) or has_bits(seg, box)) for box in range(of_vcores, boxes))


def left_over(segment: Segment, seg: Any) -> str:
    """What a stop has left, for people."""
    letters = count_letters(segment)
    boxes = something_waits(segment, seg) - bool(letters)
    events = [f"events waiting in {boxes} mailbox(es)"] if boxes else []
    dead = [f"{letters} dead letter(s) (upcall dead {segment.name} shows them)"] if letters else []
    return " and ".join(events + dead)


def finish(segment: Segment, seg: Any) -> bool:
    """The end of a run: removes the segment if nothing waits in it. True if it did. The state is DYING before the look:
    pairs with the last look of `send_event`."""
    info = segment.seg.procinfo
    for box in range(segment.seg.nr_mboxes):
        recover_mbox(seg, box)
    before = segment.u64(info + const.PI_STATE)
    segment.put_u64(info + const.PI_STATE, const.P_DYING | ((before >> 8) + 1) << 8)
    port.add_word(seg, info + const.PI_DRAINERS, 0)
    if something_waits(segment, seg):
        segment.put_u64(info + const.PI_STATE, const.P_WAITING | ((before >> 8) + 2) << 8)
        return False
    files.remove(segment)
    return True


@dataclass
class Worker:
    """One vcore's worker: its process now, and how its starts went."""

    vcoreid: int
    pid: int = 0
    pidfd: int = -1
    started: float = 0.0
    deaths: int = 0
    restart_at: float | None = None


@dataclass
class Starter:
    """Who has started a supervisor in the background: a pidfd of it, and the pipe that it waits on for a word."""

    pidfd: int
    pipe: int

    def say(self, text: str) -> bool:
        """Tells it, once. False if it does not wait any more."""
        try:
            os.write(self.pipe, text.encode())
        except BrokenPipeError:
            return False
        finally:
            os.close(self.pipe)
            self.pipe = -1
        return True


class Supervisor:
    """Attends one process until it is stopped. With a `starter` it is told when every vcore runs, and its end is a stop."""

    def __init__(self, proc: Program, signals: StopSignals, starter: Starter | None = None) -> None:
        self.proc = proc
        self.starter = starter
        self.segment = open_for_owner(proc)
        self.seg = self.segment.attach(const.ROLE_SUPERVISOR)
        self.workers = [Worker(v) for v in range(proc.definition.vcores)]
        self.starting = starter is not None
        self.selector = selectors.DefaultSelector()
        self.signals = signals
        self.selector.register(signals.fd, selectors.EVENT_READ, signals)
        if starter is not None:
            self.selector.register(starter.pidfd, selectors.EVENT_READ, starter)
        self.watcher = Watcher(self.segment, self.seg, proc.definition, self._kill)
        self.selector.register(self.watcher, selectors.EVENT_READ, self.watcher)
        self.look_at: float | None = 0.0
        """When the watcher's next look is due; None: when its FIFO is readable."""
        self.stop_as: int = 0
        self.at_once = False

    def fork(self, worker: Worker) -> None:
        """Starts a worker process for a vcore."""
        worker.restart_at = None
        worker.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        with held():  # until the worker has its own ways with them
            if self.proc.definition.start_method == "spawn":
                from .spawn import spawn

                worker.pid = spawn(self.proc, worker.vcoreid)
            else:
                worker.pid = os.fork()
                if worker.pid == 0:
                    _in_child(lambda: self._worker(worker.vcoreid))
        worker.pidfd = os.pidfd_open(worker.pid)
        self.selector.register(worker.pidfd, selectors.EVENT_READ, worker)

    def _worker(self, vcoreid: int) -> int:
        """A worker process, before it becomes one: lets go of what is the supervisor's."""
        fds = [other.pidfd for other in self.workers]
        if self.starter is not None:
            fds += [self.starter.pidfd, self.starter.pipe]
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        self.selector.close()
        return worker_process(self.proc, self.proc.name, vcoreid)

    def _signalled(self) -> None:
        """SIGINT, SIGTERM. In the foreground: stop as defined, and at a second one, at once. In the background: SIGTERM
        is "drain" and SIGINT "now", the words of `Background.stop`, which may be said again: the last one counts."""
        for number in self.signals.take():
            if self.starter is not None:
                self._stop("drain" if number == signal.SIGTERM else "now")
            else:
                self.at_once = bool(self.stop_as)
                self._stop(self.proc.definition.stop)

    def run(self) -> None:
        """Until stopped."""
        try:
            self._signalled()
            for worker in self.workers if not self.stop_as else ():
                self.fork(worker)
            while any(worker.pid or worker.restart_at is not None for worker in self.workers):
                self._step()
        finally:
            for worker in self.workers:
                if worker.pid:
                    os.kill(worker.pid, signal.SIGKILL)
                    os.waitpid(worker.pid, 0)
            self.close()

    def _step(self) -> None:
        if self.starting and self.starter is not None and all(self._online(w) for w in self.workers):
            self.starting = False
            if not self.starter.say("ready"):
                self._stop("now")  # whoever wanted it was interrupted
        due = [w.restart_at for w in self.workers if w.restart_at is not None]
        if self.look_at is not None:
            due.append(self.look_at)
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        if self.starting:
            timeout = 0.002  # starting up: nobody tells us that a worker has come online
        for key, _ in self.selector.select(timeout):
            if key.data is self.signals:
                self._signalled()
            elif key.data is self.starter:
                self.selector.unregister(key.fd)
                if not self.stop_as:
                    self._stop("drain")  # nobody else will
            elif key.data is self.watcher:
                self.look_at = 0.0
            else:
                self._died(key.data)
        now = time.monotonic()
        if self.look_at is not None and self.look_at <= now:
            pause = self.watcher.look()
            self.look_at = None if pause is None else now + pause
        for worker in self.workers:
            if worker.restart_at is not None and (self.stop_as or worker.restart_at <= now):
                worker.restart_at = None
                if not self.stop_as:
                    self.fork(worker)

    def _kill(self, vcoreid: int) -> None:
        """Ends a worker that hangs; what follows is as for any death."""
        worker = self.workers[vcoreid]
        if worker.pid:
            os.kill(worker.pid, signal.SIGKILL)

    def _online(self, worker: Worker) -> bool:
        """Whether this worker hosts its vcore, so that everybody can tell its pid; one that died at its start does not
        hold the others back."""
        host = self.segment.u64(vcpd_at(self.seg, worker.vcoreid) + const.VCPD_HOST)
        hosted = self.segment.u64(map_at(self.seg, worker.vcoreid)) & 15 != const.VC_NOHOST
        return (hosted and self._pid_of(host) == worker.pid) or worker.deaths > 0

    def _pid_of(self, name: int) -> int:
        """The process behind a name; 0 for nobody's, and for one whose attach slot has another owner by now."""
        slot = name & const.SLOT_MASK
        if slot >= self.seg.max_slots:
            return 0
        at = slot_record_at(self.seg, slot)
        ours = self.segment.u64(at + const.AS_WORD) & const.SLOT_GEN_MASK == name >> 12
        return self.segment.u32(at + const.AS_PID) if name and ours else 0

    def _stop(self, stop: str) -> None:
        """Tells every worker to stop in this manner, "drain" or "now", and wakes them all; at once: kills them."""
        self.stop_as = const.STOP_DRAIN if stop == "drain" else const.STOP_NOW
        if self.at_once:
            for worker in self.workers:
                if worker.pid:
                    os.kill(worker.pid, signal.SIGKILL)
        self.segment.put_u32(self.seg.procinfo + const.PI_STOP, self.stop_as)
        for worker in self.workers:
            port.add_word(self.seg, vcpd_at(self.seg, worker.vcoreid) + const.VCPD_NOTIF_PENDING, 1)
            startcore(self.seg, worker.vcoreid)
            port.interrupt_vcore(self.seg, worker.vcoreid)

    def _died(self, worker: Worker) -> None:
        """A worker has ended: settles what it held, and plans its restart."""
        self.selector.unregister(worker.pidfd)
        os.close(worker.pidfd)
        worker.pidfd = -1
        _, status = os.waitpid(worker.pid, 0)
        name = self.segment.u64(vcpd_at(self.seg, worker.vcoreid) + const.VCPD_HOST)
        if self._pid_of(name) == worker.pid:
            bury_name(self.seg, name)
        lived, worker.pid = time.monotonic() - worker.started, 0
        unhost_vcore(self.seg, worker.vcoreid)
        again = recover_vcore(self.seg, worker.vcoreid, name)
        if self.stop_as or self.segment.u32(self.seg.procinfo + const.PI_STOP):
            return  # told already: `Background.stop` writes the word first, then sends the signal
        announce(self.seg)
        worker.deaths = 1 if lived >= STEADY_S else worker.deaths + 1
        pause = 0.0 if worker.deaths == 1 else min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (worker.deaths - 2))
        if worker.deaths >= GIVE_UP:
            pause = BACKOFF_MAX_S
        log.warning(
            "%s/vcore %d: worker ended (%s) after %.1f s; %d event(s) in its hands will be handled again; restart in %.2f s",
            self.proc.name, worker.vcoreid, describe_exit(status), lived, again, pause,
        )  # fmt: skip
        at = vcpd_at(self.seg, worker.vcoreid) + const.VCPD_RESTARTS
        self.segment.put_u64(at, self.segment.u64(at) + 1)
        worker.restart_at = time.monotonic() + pause

    def close(self) -> None:
        """The end: removes the segment, or leaves it with what waits in it."""
        if not finish(self.segment, self.seg):
            log.warning(
                "%s: stopped with %s: they stay in %s for the next start",
                self.proc.name, left_over(self.segment, self.seg), self.segment.path,
            )  # fmt: skip
        self.selector.close()
        self.watcher.close()
        self.segment.close()


def _in_child(function: Any) -> None:
    """Runs a forked child's life; never returns."""
    code = 1
    try:
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run_here(proc: Program) -> None:
    """`Proc.run`: attends the process in the calling one, in the main thread, until a signal stops it."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(f"Proc.run of {proc.name!r} handles signals: call it in the main thread, or use start()")
    if proc.definition.host == "thread":
        from .threads import run_threads

        run_threads(proc)
        return
    with StopSignals() as signals:
        Supervisor(proc, signals).run()


class Background:
    """A supervisor child process, as its starter sees it."""

    def __init__(self, proc: Program, pid: int) -> None:
        self.proc = proc
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)

    def stop(self, stop: Literal["drain", "now"], timeout: float | None) -> None:
        """Asks the supervisor to stop, and waits for its end. TimeoutError past `timeout` seconds."""
        # What a handler in hand leaves behind is decided now, not when the supervisor gets to it.
        segment = self.proc.handle().segment
        how = const.STOP_DRAIN if stop == "drain" else const.STOP_NOW
        segment.put_u32(segment.seg.procinfo + const.PI_STOP, how)
        number = signal.SIGTERM if stop == "drain" else signal.SIGINT
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)
        with selectors.DefaultSelector() as selector:
            selector.register(self.pidfd, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise TimeoutError(f"process {self.proc.name!r} (pid {self.pid}) still stops after {timeout} s")
        os.close(self.pidfd)
        os.waitpid(self.pid, 0)


def start_child(proc: Program) -> Any:
    """`Proc.start`: forks a supervisor and returns when every vcore runs. The supervisor's errors are raised here."""
    if proc.definition.host == "thread":
        from .threads import start_threads

        return start_threads(proc)
    read, write = os.pipe()
    starter = Starter(os.pidfd_open(os.getpid()), write)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = 0
    try:
        with open(read, "rb") as pipe:
            try:
                with held():  # until the child has its own ways with them
                    pid = os.fork()
                    if pid == 0:
                        pipe.close()
                        _in_child(lambda: _supervise(proc, starter))
            finally:
                os.close(write)
                os.close(starter.pidfd)
            said = pipe.read().decode(errors="replace")
        if said == "ready":
            return Background(proc, pid)
    except BaseException:
        _give_up(pid)
        raise
    _, status = os.waitpid(pid, 0)
    kind, _, message = said.partition(":")
    errors: dict[str, type[Exception]] = {
        "NameInUse": NameInUse,
        "SegmentError": SegmentError,
        "ValueError": ValueError,
    }
    raise errors.get(kind, UpcallError)(message or f"process {proc.name!r} did not start ({describe_exit(status)})")


def _give_up(pid: int) -> None:
    """Ends a supervisor whose start was interrupted, and waits for its end."""
    if pid:
        os.kill(pid, signal.SIGINT)
        os.waitpid(pid, 0)


def _supervise(proc: Program, starter: Starter) -> int:
    """The supervisor child, forked with both signals held back."""
    # The terminal's Ctrl-C is the starter's business, one that has come before this line too.
    os.setpgid(0, 0)
    signal.sigtimedwait((signal.SIGINT,), 0)
    signals = StopSignals().__enter__()  # to the end: this process has no other life
    let_in()
    try:
        supervisor = Supervisor(proc, signals, starter)
    except BaseException as error:
        starter.say(f"{type(error).__name__}:{error}")
        return 1
    supervisor.run()
    return 0
