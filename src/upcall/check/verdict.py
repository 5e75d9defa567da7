"""What an exploration is asked for, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STATUS = ("runs", "asleep", "woken", "stopped", "dead")
MOVES = ("step", "flush", "dies", "stops")

Move = tuple[int, int, int]
"""(actor, kind of move, choice): the choice is which of several stores a load reads, under `ra`; else 0."""


@dataclass
class Limits:
    """When to stop early: after so many states, or seconds. `preemptions`: explore only runs with at most so many
    switches away from an actor that could go on."""

    states: int = 20_000_000
    seconds: float = 1e9
    preemptions: int | None = None


@dataclass
class Violation:
    """A broken promise: what, and the moves that lead there."""

    what: str
    moves: list[Move]


@dataclass
class Verdict:
    """What an exploration found. `complete`: every state was seen; else `why` says what was left out. `accesses` are those
    of all moves explored; `ran` those for which code ran, repeated runs included. `cpu`: seconds of one core. `bound`: the
    bound on switches that it was explored with; `covered`: every run with at most so many was seen (-1: not even those).
    `cut_short`: its time was over before all that was asked for was seen."""

    scenario: str
    model: str
    deaths: int
    stops: int
    complete: bool = False
    why: str = ""
    violation: Violation | None = None
    states: int = 0
    moves: int = 0
    accesses: int = 0
    ran: int = 0
    nodes: list[int] = field(default_factory=list)
    ends: int = 0
    passes: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    bound: int | None = None
    covered: int = -1
    cut_short: bool = False

    @property
    def speed(self) -> float:
        """Accesses for each second of a core."""
        return self.accesses / max(self.cpu, 1e-6)

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return self.violation is None


class Broken(Exception):
    """A promise is broken in the present state."""


class Shared(Exception):
    """A word turned out to be shared: the pass begins anew."""


class State:
    """What a scenario's checks may look at: memory, notes, and what has become of the actors."""

    def __init__(self, explorer: Any, names: list[str]) -> None:
        self.explorer = explorer
        self.names = names
        self.notes: dict[Any, int] = {}

    def get(self, offset: int, width: int = 8) -> int:
        """A word of the segment, as memory has it (buffers aside)."""
        return int(self.explorer.word(offset >> 3) >> ((offset & 7) * 8)) & ((1 << 8 * width) - 1)

    def status(self, actor: int) -> str:
        """ "runs", "asleep", "woken", "stopped" or "dead"."""
        return STATUS[self.explorer.status_of(actor)]

    def dead(self, actor: int) -> bool:
        """Whether an actor was killed."""
        return self.status(actor) == "dead"

    def stopped(self, actor: int) -> bool:
        """Whether an actor was stopped for ever."""
        return self.status(actor) == "stopped"

    def ended(self, actor: int) -> bool:
        """Whether an actor has come to its end."""
        return bool(self.explorer.has_ended(actor))

    def count(self, *what: Any) -> int:
        """How often something was noted."""
        return self.notes.get(what, 0)

    def noted(self, first: Any) -> list[tuple[Any, ...]]:
        """The notes that begin with `first`, each as often as it was made."""
        return [note[1:] for note, n in self.notes.items() if note[0] == first for _ in range(n)]
