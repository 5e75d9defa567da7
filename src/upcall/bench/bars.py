"""The figures to reach, and how a run is compared with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .own.running import NAME
from .sample import ROWS, Sample

MESSAGELESS: Final = frozenset(
    ("C futex", "C line", "C ring", "C slot", "eventfd", "semaphore", "signal", "iceoryx2 event")
)  # fmt: skip
"""Systems that carry no message, or no Python: shown beside upcall, not raced with."""


@dataclass(frozen=True)
class Bar:
    """What a row must reach, and the goal: in the row's unit, or (with `times`) as a multiple of that system's median in
    the same run."""

    row: str
    bar: float
    goal: float
    times: str | None = None


BARS: Final[Sequence[Bar]] = (
    Bar("send-message", 100, 60),
    Bar("send-bit", 60, 40),
    Bar("events-1-1", 4e6, 6e6),
    Bar("events-many-1-1", 15e6, 25e6),
    Bar("roundtrip-polling", 1.0, 0.6),
    Bar("roundtrip-parked", 1.2, 1.1, "C futex"),
    Bar("interrupt", 1.3, 1.1, "signal"),
    *(
        Bar(row, bar, bar, times)
        for row in ("tasks-1", "tasks-2")
        for times, bar in (("ProcessPoolExecutor", 10), ("mp.Pool", 3), ("loky", 12), ("ray", 60))
    ),
    Bar("task-polling", 12, 12),
    Bar("task-parked", 1.3, 1.0, "pipe apart"),
    Bar("task-array", 1 / 3, 1 / 6, "ProcessPoolExecutor"),
    Bar("map-million", 10, 10, "ProcessPoolExecutor"),
    Bar("idle-cpu", 0, 0),
    Bar("worker-memory", 10, 5),
)

PEER_SLACK: Final = 1.1
"""A peer that carries a message may be faster by so much and no more..."""
PARKED_PIPE_SLACK: Final = 1.2
"""... a raw pipe whose reader sleeps by so much."""


@dataclass(frozen=True)
class Verdict:
    """A bar and what was measured. `met` and `goal_met` are None where something that it needs was not measured.

    `peer` is None for a figure to reach, else the peer that must not be faster than upcall by more than `bar` times.
    """

    row: str
    unit: str
    peer: str | None
    bar: float
    goal: float | None
    measured: float | None
    met: bool | None
    goal_met: bool | None


def ratio(own: Sample, other: Sample) -> float | None:
    """How many times better upcall is than another system in a row (below 1: worse). None if that cannot be said."""
    if not (own.measured and other.measured) or not own.median or not other.median:
        return None
    return own.median / other.median if ROWS[own.row].per_second else other.median / own.median


def verdicts(samples: Iterable[Sample]) -> list[Verdict]:
    """A verdict for each bar whose row was run, then, for each row, one against the best peer that carries a message."""
    table: dict[str, dict[str, Sample]] = {}
    for sample in samples:
        table.setdefault(sample.row, {})[sample.system] = sample
    found = [_against_bar(bar, table[bar.row]) for bar in BARS if NAME in table.get(bar.row, {})]
    for row in table.values():
        if NAME in row:
            found += _against_peers(row)
    return found


def _against_bar(bar: Bar, row: dict[str, Sample]) -> Verdict:
    own, unit = row[NAME], ROWS[bar.row].unit
    value: float | None = own.median if own.measured else None
    if bar.times is not None:
        unit = f"x {bar.times}"
        limit = row.get(bar.times)
        value = value / limit.median if value is not None and limit is not None and limit.measured else None
    if value is None:
        return Verdict(bar.row, unit, None, bar.bar, bar.goal, None, None, None)
    more = ROWS[bar.row].per_second
    met, goal_met = ((value >= want) if more else (value <= want) for want in (bar.bar, bar.goal))
    return Verdict(bar.row, unit, None, bar.bar, bar.goal, value, met, goal_met)


def _against_peers(row: dict[str, Sample]) -> list[Verdict]:
    """At most PEER_SLACK slower than the best of them; and a parked pipe, which has a bar of its own."""
    own = row[NAME]
    behind = {  # how many times faster than upcall
        name: 1 / better
        for name, sample in row.items()
        if name != NAME and name not in MESSAGELESS and (better := ratio(own, sample)) is not None
    }
    found = []
    if own.row == "task-parked":
        for pipe in ("pipe", "pipe apart"):  # no executors: the second is what there is a bar for
            behind.pop(pipe, None)
    if "pipe" in behind and own.row in ("roundtrip-parked", "wake-parked"):
        found.append(_beside(own.row, "pipe", behind.pop("pipe"), PARKED_PIPE_SLACK))
    if behind:
        best = max(behind, key=behind.__getitem__)
        found.append(_beside(own.row, best, behind[best], PEER_SLACK))
    return found


def _beside(row: str, peer: str, faster: float, slack: float) -> Verdict:
    return Verdict(row, "x as fast", peer, slack, None, faster, faster <= slack, None)
