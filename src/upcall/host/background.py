"""Running a process: in the foreground of the calling one, or in the background, in a supervisor child of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Literal

from ..errors import NameInUse, NoSuchProcess, SegmentError, UpcallError
from ..kern import const
from .definition import Program
from .forks import run_child
from .linux import reap
from .settle import has_ended, wait_for_end
from .stopping import stop_workers
from .stops import StopSignals, held, let_in
from .supervisor import Starter, Supervisor
from .worker import describe_exit

log = logging.getLogger("upcall")
OTHERS = 3
"""A stopping child's exit code: somebody else attends the process."""


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
        self.stopper = False
        """What runs under this pid is a child that stops the workers of a supervisor that has died."""

    def stop(self, stop: Literal["drain", "now"], timeout: float | None) -> None:
        """Asks the supervisor to stop, and waits for its end. If it has died its workers are stopped all the same; if
        somebody else has taken them over they are left to that one. TimeoutError past `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        if not has_ended(self.pidfd):
            # What a handler in hand leaves behind is decided now, not when the supervisor gets to it.
            # Somebody else has stopped it just now, or its segment cannot be opened any more.
            with contextlib.suppress(NoSuchProcess, SegmentError):
                segment = self.proc.handle().segment
                info = segment.seg.procinfo
                if segment.u32(info + const.PI_SUPERVISOR_PID) == self.pid:  # and nobody has started another since
                    segment.put_u32(info + const.PI_STOP, const.STOP_DRAIN if stop == "drain" else const.STOP_NOW)
            if not self.stopper:
                number = signal.SIGTERM if stop == "drain" else signal.SIGINT
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.pidfd, number)
        status = self._wait(end, timeout)
        if status != 0 and not self.stopper:
            self._stop_workers(stop)
            status = self._wait(end, timeout)
        if status == OTHERS:
            log.warning("%s: its supervisor had died, and somebody else attends it now: not stopped", self.proc.name)

    def _wait(self, end: float | None, timeout: float | None) -> int | None:
        """The child's exit code, negative for a signal; None if nobody knows."""
        if not wait_for_end(self.pidfd, None if end is None else int(max(0.0, end - time.monotonic()) * 1000)):
            raise TimeoutError(f"process {self.proc.name!r} (pid {self.pid}) still stops after {timeout} s")
        os.close(self.pidfd)
        status = reap(self.pid)
        return None if status is None else os.waitstatus_to_exitcode(status)

    def _stop_workers(self, stop: str) -> None:
        """Stops workers without a supervisor, in a child: it goes on if we do not wait for it to the end."""
        name = self.proc.name

        def stop_them() -> int:
            with contextlib.suppress(NoSuchProcess):
                return OTHERS if stop_workers(name, stop, log.debug) is None else 0
            return 0

        self.pid = os.fork()
        if self.pid == 0:
            run_child(stop_them)
        self.pidfd = os.pidfd_open(self.pid)
        self.stopper = True


def fork_supervisor(proc: Program, starter: Starter, pipe: BinaryIO, kind: type[Supervisor] = Supervisor) -> int:
    """Forks a supervisor; its pid. `pipe` is the starter's end."""
    pid = os.fork()
    if pid == 0:
        pipe.close()
        run_child(lambda: supervise(proc, starter, kind))
    return pid


def start_child(proc: Program, launch: Callable[[Program, Starter, BinaryIO], int] = fork_supervisor) -> Any:
    """`Proc.start`: launches a supervisor and returns when every vcore runs. The supervisor's errors are raised here."""
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
                    pid = launch(proc, starter, pipe)
            finally:
                os.close(write)
                os.close(starter.pidfd)
            said = _hear(pipe, pid).decode(errors="replace")
        if said == "ready":
            return Background(proc, pid)
    except BaseException:
        _give_up(pid)
        raise
    status = reap(pid)
    kind, _, message = said.partition(":")
    errors: dict[str, type[Exception]] = {
        "NameInUse": NameInUse,
        "SegmentError": SegmentError,
        "ValueError": ValueError,
    }
    raise errors.get(kind, UpcallError)(message or f"process {proc.name!r} did not start ({describe_exit(status)})")


def _hear(pipe: BinaryIO, pid: int) -> bytes:
    """What a supervisor says at its start. Not until the pipe's end: another thread may have forked meanwhile, and its
    child has a copy of the other end for as long as it lives."""
    said, timeout, poll = b"", None, select.poll()
    poll.register(pipe, select.POLLIN)
    with contextlib.ExitStack() as files:
        try:
            pidfd = os.pidfd_open(pid)
            files.callback(os.close, pidfd)
            poll.register(pidfd, select.POLLIN)
        except ProcessLookupError:
            timeout = 0  # it has ended, and the program ignores SIGCHLD
        while said != b"ready" and pipe.fileno() in [fd for fd, _ in poll.poll(timeout)]:
            more = os.read(pipe.fileno(), 65536)
            if not more:
                break
            said += more
    return said


def _give_up(pid: int) -> None:
    """Ends a supervisor whose start was interrupted, and waits for its end."""
    if pid:
        os.kill(pid, signal.SIGINT)
        reap(pid)


def supervise(proc: Program, starter: Starter, kind: type[Supervisor]) -> int:
    """The supervisor child, launched with both signals held back."""
    # The terminal's Ctrl-C is the starter's business, one that has come before this line too.
    os.setpgid(0, 0)
    signal.sigtimedwait((signal.SIGINT,), 0)
    signals = StopSignals().__enter__()  # to the end: this process has no other life
    let_in()
    try:
        supervisor = kind(proc, signals, starter)
    except BaseException as error:
        starter.say(f"{type(error).__name__}:{error}")
        return 1
    try:
        supervisor.run()
    except UpcallError as error:
        if not supervisor.starting:
            raise
        starter.say(f"{type(error).__name__}:{error}")
        return 1
    return 0
