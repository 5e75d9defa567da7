"""One storm: a process and its senders, a killer among them, and new senders for those that were killed."""

from __future__ import annotations

import json
import os
import random
import select
import selectors
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import NoSuchProcess
from ..inspect import clean, dump
from . import check, show, target
from . import ledger as books
from .killer import Killer, children, hold
from .ledger import Ledger
from .participants import fork, log_problems, logged
from .sender import live
from .settle import Settling, Stuck

EVENTS_A_SECOND_MAX = 100_000
"""Of one seat; the ledger has room for so many."""

LOOK_S = 0.2
"""How often the progress is brought up to date."""


@dataclass(frozen=True)
class Plan:
    """What a storm is to be. `seed` decides whom the killer hits and what senders send; when that happens, the machine
    does."""

    senders: int = 2
    vcores: int = 4
    seconds: float = 30.0
    rate: float = 20.0
    seed: int = 0
    supervisor: bool = False
    thread: bool = False


@dataclass
class Seat:
    """A sender's place: who sits there now."""

    number: int
    incarnation: int = 0
    pid: int = 0
    pidfd: int = -1
    restarts: int = 0


class Storm:
    """All that takes part. Made in the main thread of a program with no other threads: it forks."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.name = f"storm-{os.getpid()}"
        events = int((plan.seconds + 10) * EVENTS_A_SECOND_MAX)
        self.ledger = Ledger(plan.senders + 1, plan.vcores, events, int(plan.seconds * plan.rate * 3) + 100)
        self.seats = [Seat(number) for number in range(plan.senders)]
        self.roll_call = Seat(plan.senders)
        self.incarnations = 0
        self.problems: list[str] = []
        self.stopped_early = False
        self.log_path = folder / "log"
        self.selector = selectors.DefaultSelector()
        self.proc = target.define(self.name, plan.vcores, self.ledger, thread=plan.thread)
        self.killer = Killer(random.Random(plan.seed), plan.rate, self.targets, self.note_hit)

    def note_hit(self) -> None:
        """Into the ledger: somebody has just been killed or stopped."""
        self.ledger.note_kill(time.monotonic_ns())

    def supervisor(self) -> int:
        """The pid of who supervises the process now."""
        return int(self.proc._running.pid)

    def targets(self) -> dict[str, list[tuple[int, int]]]:
        """Everybody who may be hit, by role: pid and parent."""
        mine, supervisor = os.getpid(), self.supervisor()
        found = {
            "sender": [(seat.pid, mine) for seat in self.seats if seat.pid],
            "vcore": [(pid, supervisor) for pid in children(supervisor)],
        }
        if self.plan.supervisor:
            found["supervisor"] = [(supervisor, mine)]
        return found

    # Senders

    def seat_sender(self, seat: Seat, life: Callable[..., None] = live) -> None:
        """Forks a new incarnation for a seat."""
        self.incarnations += 1
        seat.incarnation = self.incarnations
        arguments = (
            self.ledger, self.name, seat.number, seat.incarnation, self.plan.vcores, self.plan.seed,
        )  # fmt: skip
        seat.pid = fork(lambda: life(*arguments))
        seat.pidfd = os.pidfd_open(seat.pid)
        self.selector.register(seat.pidfd, selectors.EVENT_READ, seat)

    def reap(self, seat: Seat) -> None:
        """A sender has ended: by the killer's hand, or because it was told to stop. Anything else is a problem."""
        self.selector.unregister(seat.pidfd)
        os.close(seat.pidfd)
        _, status = os.waitpid(seat.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, -signal.SIGKILL):
            self.problems.append(f"sender {seat.number} (pid {seat.pid}) ended with {code}: see {self.log_path.name}")
        seat.pid, seat.pidfd = 0, -1

    def wait(self, until: float) -> None:
        """Sleeps until then, or until a sender has ended, and reaps it."""
        for key, _ in self.selector.select(max(0.0, until - time.monotonic())):
            if isinstance(key.data, Seat):
                self.reap(key.data)

    # The storm

    def blow(self, screen: show.Screen) -> None:
        """Senders send, vcores handle, the killer kills, for as long as was planned or until Ctrl-C."""
        begin = time.monotonic()
        end = begin + self.plan.seconds
        for seat in self.seats:
            self.seat_sender(seat)
        look = begin
        with screen.progress(self.plan.seconds) as progress:
            while (now := time.monotonic()) < end and not self.stopped_early and not self.problems:
                self.wait(min(end, look, self.killer.due()))
                self.killer.step()
                for seat in self.seats:
                    if not seat.pid:
                        seat.restarts += 1
                        self.seat_sender(seat)
                if now >= look:
                    look = now + LOOK_S
                    progress(now - begin, self.figures())
        self.killer.end()
        self.ledger.words[books.STOP] = 1

    def figures(self) -> dict[str, int]:
        """What the progress shows."""
        return {
            "sent": self.ledger.sent(),
            "handled": self.ledger.total(books.HANDLED),
            "kills": sum(self.killer.deeds.values()),
            "redelivered": self.ledger.total(books.AGAIN),
        }

    def close(self) -> None:
        """Ends whoever is left, by force, and returns when nobody is."""
        for seat in (*self.seats, self.roll_call):
            if seat.pid:
                os.kill(seat.pid, signal.SIGKILL)
                self.reap(seat)
        self.selector.close()
        if self.proc._running is None:
            return
        supervisor = self.supervisor()
        with suppress(ProcessLookupError):
            os.kill(supervisor, signal.SIGSTOP)  # it forks no more
        held = [fd for pid in children(supervisor) if (fd := hold(pid, supervisor)) is not None]
        with suppress(ProcessLookupError):
            os.kill(supervisor, signal.SIGKILL)
        for pidfd in held:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [])
            os.close(pidfd)
        self.proc.stop("now")


def run(plan: Plan, *, as_json: bool = False) -> int:
    """One storm, and its verdict. The exit code: 0 if nothing was wrong, 1 otherwise, 130 after a second Ctrl-C."""
    screen = show.Screen(quiet=as_json)
    folder = Path(tempfile.mkdtemp(prefix="upcall-storm-"))
    keep = True
    try:
        with logged(folder / "log"):
            result = one_storm(plan, folder, screen)
        keep = bool(result["problems"])
        if keep:
            result["kept"] = str(folder)
            (folder / "result.json").write_text(json.dumps(result, indent=2))
    except KeyboardInterrupt:
        screen.say("stopped: no verdict")
        keep = False
        return 130
    finally:
        if not keep:
            shutil.rmtree(folder)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        screen.results(result)
    return 1 if keep else 0


def one_storm(plan: Plan, folder: Path, screen: show.Screen) -> dict[str, Any]:
    """Blows, settles, checks. What is wrong leaves its evidence in the folder."""
    storm = Storm(plan, folder)
    settling: Settling | None = None
    hung = None
    begin = time.monotonic()
    try:
        with interruptible(storm):
            storm.proc.start()
            settling = Settling(storm)
            storm.blow(screen)
            blown = time.monotonic() - begin
            screen.say("the storm is over: draining, and checking the books")
            try:
                settling.run()
            except Stuck as error:
                hung = str(error)
        verdict = check.check(storm.ledger)
        verdict.problems = [*storm.problems, *settling.problems, *log_problems(storm.log_path), *verdict.problems]
        if hung is not None:
            verdict.problems.insert(0, f"hung: {hung}")
        if verdict.problems:
            keep_evidence(storm, settling, folder)
        return show.result(storm, settling, verdict, blown, hung)
    finally:
        if settling is not None:
            settling.close()
        storm.close()
        with suppress(NoSuchProcess):
            clean(discard=True, only=[storm.name])
        storm.ledger.close()


def keep_evidence(storm: Storm, settling: Settling, folder: Path) -> None:
    """The segment as it is now, for `UPCALL_DIR=folder upcall dump NAME`, and what the dump says while owners live."""
    (folder / storm.name).mkdir(mode=0o700)
    shutil.copyfile(f"/proc/self/fd/{settling.segment.file}", folder / storm.name / "segment")
    with suppress(NoSuchProcess):
        (folder / "dump.json").write_text(json.dumps(dump(storm.name), indent=2))


@contextmanager
def interruptible(storm: Storm) -> Iterator[None]:
    """Ctrl-C ends the storm early; a second one gives up."""

    def on_signal(signum: int, frame: FrameType | None) -> None:
        if storm.stopped_early:
            raise KeyboardInterrupt
        storm.stopped_early = True

    former = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
