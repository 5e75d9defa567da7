"""Kills and stops participants: SIGKILL at once, or SIGSTOP for a while and then SIGCONT or SIGKILL.

Whom it hits it holds by a pidfd that was opened while its parent had not reaped it: no pid that was used again is ever
signalled. A stopped one is left alone until it goes on, or is killed.
"""

from __future__ import annotations

import heapq
import os
import random
import select
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

KILL, STOP, STOP_KILL = "killed", "stopped", "stopped, then killed"
DEEDS = (KILL, KILL, KILL, STOP, STOP_KILL)
STOP_MAX_S = 0.3
ROLES = ("sender", "vcore", "supervisor")
SUPERVISOR_SHARE = 0.03


def children(pid: int) -> list[int]:
    """The processes that a process has forked and not reaped. Empty if it is gone."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (task / "children").read_text().split())
    return found


def hold(pid: int, parent: int) -> int | None:
    """A pidfd of a living child of `parent`; None if it has died, or is no child of its."""
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Listed after the open: until then it had not been reaped, and the number was its.
    if pid in children(parent) and not select.select([held], [], [], 0)[0]:
        return held
    os.close(held)
    return None


@dataclass(order=True)
class Stopped:
    """A participant that is stopped until `due`, and then goes on or is killed."""

    due: float
    pid: int
    pidfd: int = field(compare=False)
    role: str = field(compare=False)
    then: int = field(compare=False)


Targets = dict[str, dict[int, Callable[[], int | None]]]
"""By role, who may be hit: its pid, and what opens a pidfd of it (None: it is gone)."""


class Killer:
    """Hits one participant of `targets()` at a time, `rate` times a second on average, in one of the ways `deeds`.
    `on_hit` is called after each death and each stop."""

    def __init__(
        self, rng: random.Random, rate: float, targets: Callable[[], Targets],
        on_hit: Callable[[], object] = lambda: None, deeds: tuple[str, ...] = DEEDS,
    ) -> None:  # fmt: skip
        self.rng, self.rate, self.targets, self.on_hit, self.ways = rng, rate, targets, on_hit, deeds
        self.next = time.monotonic() + self.pause()
        self.stopped: list[Stopped] = []
        self.dying: set[int] = set()
        self.deeds: Counter[tuple[str, str]] = Counter()
        self.missed = 0

    def pause(self) -> float:
        """Until the next one: random, 1/rate on average."""
        return min(self.rng.expovariate(self.rate), 10 / self.rate)

    def due(self) -> float:
        """When there is something to do next."""
        return min(self.next, self.stopped[0].due) if self.stopped else self.next

    def step(self) -> None:
        """Does what is due."""
        now = time.monotonic()
        while self.stopped and self.stopped[0].due <= now:
            self.go_on(heapq.heappop(self.stopped))
        if self.next <= now:
            # Late ones are made up for, but not all at once.
            self.next = max(self.next + self.pause(), now - 1 / self.rate)
            self.hit()

    def go_on(self, one: Stopped) -> None:
        """The end of a stop."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(one.pidfd, one.then)
            if one.then == signal.SIGKILL:
                self.dying.add(one.pid)
                self.on_hit()
        os.close(one.pidfd)

    def hit(self) -> None:
        """Kills or stops somebody."""
        found = self.targets()
        supervisor = "supervisor" in found and self.rng.random() < SUPERVISOR_SHARE
        self.dying &= {pid for those in found.values() for pid in those}
        idle = self.dying | {one.pid for one in self.stopped}
        many = [
            (role, pid)
            for role, those in found.items()
            if (role == "supervisor") == supervisor
            for pid in sorted(those)
            if pid not in idle
        ]
        deed = self.rng.choice(self.ways)
        role, pid = self.rng.choice(many) if many else ("", 0)
        held = found[role][pid]() if many else None
        if held is None:
            self.missed += 1
            return
        self.deeds[role, deed] += 1
        if deed == KILL:
            self.go_on(Stopped(0.0, pid, held, role, signal.SIGKILL))
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(held, signal.SIGSTOP)
            self.on_hit()
        then = signal.SIGCONT if deed == STOP else signal.SIGKILL
        due = time.monotonic() + self.rng.uniform(0.001, STOP_MAX_S)
        heapq.heappush(self.stopped, Stopped(due, pid, held, role, then))

    def end(self) -> None:
        """No more: whoever is stopped goes on, or is killed, now."""
        for one in self.stopped:
            self.go_on(one)
        self.stopped.clear()
