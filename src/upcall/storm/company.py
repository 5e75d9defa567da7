"""Everybody who takes part in a storm: senders on their seats, the supervisor, its workers; who they are just now.

A sender that was killed is replaced on its seat, a supervisor that was killed by another one, which takes over its workers.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import NoSuchProcess, UpcallError
from ..host.segment import Segment
from ..host.settle import open_host, wait_for_end
from ..kern.layout import Seg
from ..proc import Proc
from ..remote import Remote, connect
from .killer import Targets, children, hold
from .ledger import Ledger
from .participants import fork
from .sender import live

START_S = 30.0
LOOK_S = 0.005


class Stuck(UpcallError):
    """Something hangs; the text says what."""


@dataclass
class Seat:
    """The place of a sender, or of the supervisor (`number` -1): who has it now."""

    number: int
    incarnation: int = 0
    pid: int = 0
    pidfd: int = -1
    restarts: int = 0

    def __str__(self) -> str:
        return f"{'supervisor' if self.number < 0 else f'sender {self.number}'} (pid {self.pid})"


class Company:
    """The processes. Made in the main thread of a program with no other threads: it forks."""

    def __init__(self, proc: Proc, ledger: Ledger, senders: int, seed: int) -> None:
        self.proc, self.ledger, self.seed = proc, ledger, seed
        self.vcores = proc.definition.vcores
        self.senders = [Seat(number) for number in range(senders)]
        self.caller = Seat(senders)
        """The sender that calls the roll after the storm."""
        self.supervisor = Seat(-1)
        self.incarnations = 0
        self.ending = False
        """The supervisor is to end: nobody takes its place."""
        self.problems: list[str] = []
        self.selector = selectors.DefaultSelector()
        self.remote: Remote | None = None

    # Starting

    def start(self) -> None:
        """Starts the process, and returns when every vcore is hosted. Stuck if that does not come."""
        self.attend()
        end = time.monotonic() + START_S
        while self.remote is None or len(self.hosts()) < self.vcores:
            if self.problems or time.monotonic() > end:
                raise Stuck(
                    f"{self.proc.name!r} does not start: {'; '.join(self.problems) or 'nothing is heard of it'}"
                )
            with suppress(NoSuchProcess):
                self.remote = self.remote or connect(self.proc.name)
            self.wait(time.monotonic() + LOOK_S)

    def attend(self) -> None:
        """Forks a supervisor. It ends with us in good order, and takes its workers with it."""
        self._seat(self.supervisor, self._supervise, signal.SIGTERM)

    def _supervise(self) -> None:
        os.setpgid(0, 0)  # Ctrl-C is for us
        self.proc.run()

    def seat_sender(self, seat: Seat, life: Callable[..., None] = live) -> None:
        """Forks a new incarnation for a seat."""
        self.incarnations += 1
        seat.incarnation = self.incarnations
        self._seat(
            seat, partial(life, self.ledger, self.proc.name, seat.number, seat.incarnation, self.vcores, self.seed)
        )

    def _seat(self, seat: Seat, life: Callable[[], None], at_our_end: int = signal.SIGKILL) -> None:
        seat.pid = fork(life, at_our_end)
        seat.pidfd = os.pidfd_open(seat.pid)
        self.selector.register(seat.pidfd, selectors.EVENT_READ, seat)

    # Ending

    def wait(self, until: float) -> None:
        """Sleeps until then, or until somebody has ended, and reaps him. A supervisor is replaced at once."""
        for key, _ in self.selector.select(max(0.0, until - time.monotonic())):
            self._reap(key.data)
        if not self.supervisor.pid and not self.ending and not self.problems:
            self.supervisor.restarts += 1
            self.attend()

    def _reap(self, seat: Seat) -> None:
        """Somebody has ended: by the killer's hand, or because it was told to. Anything else is a problem."""
        self.selector.unregister(seat.pidfd)
        os.close(seat.pidfd)
        _, status = os.waitpid(seat.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        expected = (-signal.SIGKILL, 0) if seat is not self.supervisor or self.ending else (-signal.SIGKILL,)
        if code not in expected:
            self.problems.append(f"{seat} ended with {code}; why is in the log")
        seat.pid, seat.pidfd = 0, -1

    def replace_senders(self) -> None:
        """New senders for those that have ended."""
        for seat in self.senders:
            if not seat.pid:
                seat.restarts += 1
                self.seat_sender(seat)

    def end_supervisor(self, timeout_s: float) -> bool:
        """Tells the supervisor to stop. Whether it has ended in time."""
        self.ending = True
        signal.pidfd_send_signal(self.supervisor.pidfd, signal.SIGTERM)
        if not wait_for_end(self.supervisor.pidfd, int(timeout_s * 1000)):
            return False
        self._reap(self.supervisor)
        return True

    def close(self) -> None:
        """Ends whoever is left, by force, and returns when nobody is."""
        self.ending = True
        if self.supervisor.pid:
            os.kill(self.supervisor.pid, signal.SIGSTOP)  # it forks no more
        workers = [hold(pid, self.supervisor.pid) for pid in children(self.supervisor.pid)]
        for seat in (*self.senders, self.caller, self.supervisor):
            if seat.pid:
                os.kill(seat.pid, signal.SIGKILL)
                self._reap(seat)
        while hosts := self.hosts():
            workers += [opened() for opened in hosts.values()]
            for pidfd in workers:
                if pidfd is not None:
                    self._kill(pidfd)
            workers = []
        for pidfd in workers:
            if pidfd is not None:
                self._kill(pidfd)
        self.selector.close()
        if self.remote is not None:
            self.remote.close()

    def _kill(self, pidfd: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        wait_for_end(pidfd)
        os.close(pidfd)

    # Looking

    def attachment(self) -> tuple[Segment, Seg]:
        """The segment, and our own name in it."""
        assert self.remote is not None
        return self.remote.handle().segment, self.remote.handle().thread().seg

    def hosts(self) -> dict[int, Callable[[], int | None]]:
        """The workers that host a vcore, whoever their parent is: their pids, and what opens a pidfd of each."""
        if self.remote is None:
            return {}
        segment, seg = self.attachment()
        found: dict[int, Callable[[], int | None]] = {}
        for v in range(self.vcores):
            host = open_host(segment, seg, v)
            if host is not None:
                os.close(host.pidfd)
                found[host.pid] = partial(self._open_host, v, host.pid)
        return found

    def _open_host(self, vcore: int, pid: int) -> int | None:
        """A pidfd of a vcore's host, if it is still this one."""
        host = open_host(*self.attachment(), vcore)
        if host is not None and host.pid != pid:
            os.close(host.pidfd)
            return None
        return None if host is None else host.pidfd

    def targets(self) -> Targets:
        """Everybody who may be hit, by role. Workers that are only starting are children of the supervisor, those whose
        supervisor has died are found as hosts."""
        mine, supervisor = os.getpid(), self.supervisor.pid
        workers = self.hosts()
        workers.update({pid: partial(hold, pid, supervisor) for pid in children(supervisor)})
        return {
            "sender": {seat.pid: partial(hold, seat.pid, mine) for seat in self.senders if seat.pid},
            "vcore": workers,
            "supervisor": {supervisor: partial(hold, supervisor, mine)} if supervisor else {},
        }

    def where(self, seat: Seat) -> str:
        """Who has a seat, and what it sleeps in."""
        try:
            return f"{seat} is in {Path(f'/proc/{seat.pid}/wchan').read_text() or 'user code'}"
        except OSError as error:
            return f"{seat}: {error.strerror}"
