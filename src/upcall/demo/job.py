"""One run of the demo: the plain count, the process with its senders, the comparison, the peers."""

from __future__ import annotations

import json
import logging
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..errors import NoSuchProcess
from ..inspect import ProcessInfo, Reader, clean
from ..proc import Proc
from ..storm.killer import KILL, Killer, Targets, children, hold
from . import counting, show, text
from .peers import PEERS, Timing

SENDERS = 2
LOOK_S = 0.1
"""How often the progress bar is brought up to date."""

STOP_S = 10.0
KILLS_PER_S = 4.0


@dataclass(frozen=True)
class Delivery:
    """What the run with upcall gave: the merged counts, how long it took from the first send until every event was
    handled, and the segment before and after. If workers were killed, how many; how many lines were delivered again, and
    how many of these had been counted before."""

    counts: Counter[bytes]
    sent: int
    seconds: float
    before: ProcessInfo
    after: ProcessInfo
    kills: int | None = None
    redelivered: int = 0
    again: int = 0

    def per_event(self, counter: str) -> float:
        """How much a counter has risen, per event."""
        return (self.after.total(counter) - self.before.total(counter)) / max(1, self.sent)

    def shares(self) -> list[int]:
        """How many events each vcore has handled."""
        return [
            after.handled - before.handled for before, after in zip(self.before.vcores, self.after.vcores, strict=True)
        ]


def run(files: int | None, vcores: int, *, peers: bool = True, kill: bool = False, as_json: bool = False) -> int:
    """Runs the demo and prints its results. `kill`: workers are killed meanwhile, and nobody is compared with. The exit
    code: 0 if the counts are equal, 1 if not, 130 after Ctrl-C."""
    screen = show.Screen(quiet=as_json)
    try:
        paths = text.source_files(files)
        screen.say(f"counting the words of {len(paths)} files of the Python standard library, every line an event")
        if kill:
            screen.say(f"{KILLS_PER_S:g} times a second one of the {vcores} workers is killed (SIGKILL)")
        plain, expected = plain_count(paths)
        found = deliver(paths, vcores, plain.events, screen, kill=kill)
        equal = found.counts == expected and found.sent == plain.events
        timings = [plain]
        if peers and not kill:
            for peer in PEERS:
                screen.say(f"the same with {peer.what} ...")
                timings.append(peer.run(paths, vcores))
    except KeyboardInterrupt:
        screen.say("stopped")
        return 130
    result = show.result(found, timings, files=len(paths), senders=SENDERS, words=expected.total(), equal=equal)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        screen.results(result)
    return 0 if equal else 1


def plain_count(paths: list[Path]) -> tuple[Timing, Counter[bytes]]:
    """The counts as one process gets them in a loop, and how long that takes."""
    counts: Counter[bytes] = Counter()
    events = 0
    start = time.perf_counter()
    for group in text.lines(paths):
        for line in group:
            text.count(counts, line)
        events += len(group)
    return Timing("a plain loop in one process", events, time.perf_counter() - start, True), counts


def deliver(paths: list[Path], vcores: int, expected: int, screen: show.Screen, *, kill: bool = False) -> Delivery:
    """The job with upcall. Whatever happens, no process, segment or file stays behind."""
    name = f"demo-{os.getpid()}"
    with errors_alone(), tempfile.TemporaryDirectory(prefix="upcall-demo-") as folder:
        proc = (counting.define_journal if kill else counting.define)(name, vcores, Path(folder))
        senders: list[subprocess.Popen[str]] = []
        try:
            proc.start()
            proc.drain()  # attaches us before the senders: their attach slots, and so their counters, stay theirs
            senders += [start_sender(name, paths[i::SENDERS], i * expected if kill else None) for i in range(SENDERS)]
            for sender in senders:
                expect(sender, "ready")
            killer = Killer(random.Random(), KILLS_PER_S, partial(workers, proc), deeds=(KILL,)) if kill else None
            found = _feed(proc, senders, expected, screen, killer)
            return _counted(proc, Path(folder), found, killer)
        finally:
            for sender in senders:
                sender.kill()
                sender.communicate()
            with suppress(TimeoutError):
                proc.stop("now", STOP_S)
            with suppress(NoSuchProcess):
                clean(discard=True, only=[name])


@contextmanager
def errors_alone() -> Iterator[None]:
    """That events wait after a stop is worth a warning elsewhere; here they are discarded with the segment."""
    log = logging.getLogger("upcall")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _feed(
    proc: Proc, senders: list[subprocess.Popen[str]], expected: int, screen: show.Screen, killer: Killer | None
) -> Delivery:
    """Lets the senders send, and returns when all is handled; the counts are still with the workers."""

    def look() -> None:
        if killer is not None:
            killer.step()
        reader.refresh()
        progress(sent(reader), handled(reader))

    with Reader(proc.name) as reader:
        before = reader.process()
        start = time.perf_counter()
        if killer is not None:
            killer.next = time.monotonic()  # the first one at once: a short run is to see one too
        for sender in senders:
            tell(sender, "go")
        with screen.progress(expected) as progress:
            totals: dict[int, int] = {}
            while running := [sender for sender in senders if sender.pid not in totals]:
                # A sender says how many it has sent when it has sent them.
                if said := ready(running, LOOK_S):
                    totals[said.pid] = int(expect(said))
                look()
            while not drained(proc):
                look()
            seconds = time.perf_counter() - start
            reader.refresh()
            progress(sent(reader), handled(reader))
        after = reader.process()
    return Delivery(Counter(), sum(totals.values()), seconds, before, after)


def _counted(proc: Proc, folder: Path, found: Delivery, killer: Killer | None) -> Delivery:
    """What the workers have counted."""
    if killer is not None:
        journal = counting.journalled(folder)
        kills = sum(killer.deeds.values())
        return replace(
            found, counts=journal.counts, kills=kills, redelivered=journal.redelivered, again=journal.again
        )  # fmt: skip
    vcores = proc.definition.vcores
    for vcore in range(vcores):
        proc.vcore(vcore).send(counting.REPORT, private=True)
    proc.drain()
    return replace(found, counts=counting.merged(folder, vcores))


def workers(proc: Proc) -> Targets:
    """Whom to kill: the process's workers."""
    supervisor = int(proc._running.pid)
    return {"vcore": {pid: partial(hold, pid, supervisor) for pid in children(supervisor)}}


def sent(reader: Reader) -> int:
    """Events sent so far, as the senders count them."""
    return sum(slot.sent for slot in reader.slots())


def handled(reader: Reader) -> int:
    """Events handled so far, as the vcores count them."""
    return sum(vcore.handled for vcore in reader.vcores())


def drained(proc: Proc) -> bool:
    """Whether everything sent so far is handled; waits for that as long as nobody misses the progress bar."""
    try:
        proc.drain(LOOK_S)
    except TimeoutError:
        return False
    return True


def start_sender(name: str, paths: list[Path], first: int | None = None) -> subprocess.Popen[str]:
    """A sender, which waits to be told to begin; `first`: the number of its first line, None if lines have none. In a
    group of its own: Ctrl-C is for us, and we end it."""
    sender = subprocess.Popen(
        [sys.executable, "-m", "upcall.demo.sender"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    tell(sender, json.dumps({"name": name, "paths": [str(path) for path in paths], "first": first}))
    return sender


def ready(senders: list[subprocess.Popen[str]], timeout_s: float) -> subprocess.Popen[str] | None:
    """A sender that has something to say, or has ended."""
    outputs = {sender.stdout.fileno(): sender for sender in senders if sender.stdout is not None}
    readable, _, _ = select.select(list(outputs), [], [], timeout_s)
    return outputs[readable[0]] if readable else None


def tell(sender: subprocess.Popen[str], line: str) -> None:
    """A line to a sender."""
    assert sender.stdin is not None
    print(line, file=sender.stdin, flush=True)


def expect(sender: subprocess.Popen[str], word: str | None = None) -> str:
    """A line from a sender. RuntimeError if it says something else, or ended."""
    assert sender.stdout is not None
    line = sender.stdout.readline().strip()
    if not line or (word is not None and line != word):
        raise RuntimeError(f"sender {sender.pid} said {line!r} and ended with {sender.wait()}")
    return line
