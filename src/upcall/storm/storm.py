"""One storm: a process and its senders, a killer among them, and new senders for those that were killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import NoSuchProcess
from ..inspect import clean, dump
from . import check, show, target
from . import ledger as books
from .company import Company, Stuck
from .killer import Killer, Targets
from .ledger import Ledger
from .participants import log_problems, logged
from .settle import Settling

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
    supervisor: bool = True
    thread: bool = False


class Storm:
    """The company, the killer among them, and their books."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.name = f"storm-{os.getpid()}"
        events = int((plan.seconds + 10) * EVENTS_A_SECOND_MAX)
        self.ledger = Ledger(plan.senders + 1, plan.vcores, events, int(plan.seconds * plan.rate * 3) + 100)
        proc = target.define(self.name, plan.vcores, self.ledger, thread=plan.thread)
        self.company = Company(proc, self.ledger, plan.senders, plan.seed)
        self.killer = Killer(random.Random(plan.seed), plan.rate, self.targets, self.note_hit)
        self.stopped_early = False
        self.log_path = folder / "log"

    def note_hit(self) -> None:
        """Into the ledger: somebody has just been killed or stopped."""
        self.ledger.note_kill(time.monotonic_ns())

    def targets(self) -> Targets:
        """Whom the killer may hit."""
        found = self.company.targets()
        if not self.plan.supervisor:
            del found["supervisor"]
        return found

    def blow(self, screen: show.Screen) -> None:
        """Senders send, vcores handle, the killer kills, for as long as was planned or until Ctrl-C."""
        begin = time.monotonic()
        end = begin + self.plan.seconds
        look = begin
        for seat in self.company.senders:
            self.company.seat_sender(seat)
        with screen.progress(self.plan.seconds) as progress:
            while (now := time.monotonic()) < end and not self.stopped_early and not self.company.problems:
                self.company.wait(min(end, look, self.killer.due()))
                self.killer.step()
                self.company.replace_senders()
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
            "hits": sum(self.killer.deeds.values()),
            "redelivered": self.ledger.total(books.AGAIN),
        }

    def close(self) -> None:
        """Whatever happened: no process and no segment stays."""
        self.killer.end()
        self.company.close()
        with suppress(NoSuchProcess):
            clean(discard=True, only=[self.name])
        self.ledger.close()


def run(plan: Plan, *, as_json: bool = False) -> int:
    """One storm, and its verdict. The exit code: 0 if nothing was wrong, 1 otherwise, 130 after a second Ctrl-C."""
    screen = show.Screen(quiet=as_json)
    folder = Path(tempfile.mkdtemp(prefix="upcall-storm-"))
    keep = False
    try:
        with logged(folder / "log"):
            result = one_storm(plan, folder, screen)
        keep = bool(result["problems"])
        if keep:
            result["kept"] = str(folder)
            (folder / "result.json").write_text(json.dumps(result, indent=2))
    except KeyboardInterrupt:
        screen.say("stopped: no verdict")
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
            start(storm)
            settling = Settling(storm.company)
            storm.blow(screen)
            blown = time.monotonic() - begin
            screen.say("the storm is over: draining, and checking the books")
            try:
                settling.run()
            except Stuck as error:
                hung = str(error)
        verdict = check.check(storm.ledger)
        verdict.problems = [
            *storm.company.problems,
            *settling.problems,
            *log_problems(storm.log_path),
            *verdict.problems,
        ]
        if hung is not None:
            verdict.problems.insert(0, f"hung: {hung}")
        if verdict.problems:
            keep_evidence(storm, settling, folder)
        return show.result(storm, settling, verdict, blown, hung)
    finally:
        if settling is not None:
            settling.close()
        storm.close()


def start(storm: Storm) -> None:
    """Starts the process. Stuck, with the log's last words, if it does not start."""
    try:
        storm.company.start()
    except Stuck as error:
        last = storm.log_path.read_text(errors="replace").splitlines()[-1:]
        raise Stuck(f"{error}: {' '.join(last)}") from None


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
