"""What every job shares: what a peer is, how runs become a sample, and what surrounds one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ..measure import Board, Hung, Placing, RoleFailed, brief, median, p99, runs_for
from ..sample import ROWS, Measurement, Sample
from .link import Handler, Link

WARM_UP: Final = 16
"""Messages sent before any clock runs: connections are made, pages are touched."""


@dataclass(frozen=True)
class Peer:
    """A peer system: a name, the optional module that it needs, and its rows."""

    name: str
    measurements: Mapping[str, Measurement]
    check: Callable[[], str | None] = field(default=lambda: None)

    def available(self) -> str | None:
        """Why this peer cannot be measured here; None if it can."""
        return self.check()

    def rows(self) -> Mapping[str, Measurement]:
        """The rows this peer can do."""
        return self.measurements


def sampled(
    row: str,
    system: str,
    placing: Placing,
    scale: float,
    run: Callable[[], Iterable[float]],
    note: str,
    *,
    with_p99: bool = True,
) -> Sample:
    """Repeats `run`, whose values are in the row's unit, and makes a sample of all of them.

    A run that hangs or fails makes a sample without a value: one bad peer does not take the table with it.
    """
    runs = runs_for(scale)
    unit = ROWS[row].unit
    values: list[float] = []
    try:
        for _ in range(runs):
            values.extend(run())
    except Hung as error:
        return Sample(row, system, unit, math.nan, None, 0, str(placing), str(error))
    except RoleFailed as error:
        return Sample(row, system, unit, math.nan, None, 0, str(placing), f"failed: {error}")
    except Exception as error:  # of a peer that cannot be set up, of whatever kind it raises
        return Sample(row, system, unit, math.nan, None, 0, str(placing), f"failed: {brief(error)}")
    return Sample(row, system, unit, median(values), p99(values) if with_p99 else None, runs, str(placing), note)


@contextmanager
def made(links: Sequence[Callable[[], Link]], parties: int) -> Iterator[tuple[list[Link], Board]]:
    """Links and a board for one run, and their removal."""
    board = Board(parties)
    ready: list[Link] = []
    try:
        for make in links:
            ready.append(make())
        yield ready, board
    finally:
        for link in ready:
            link.destroy()
        board.close()


def counting_handler() -> tuple[Handler, Callable[[], int]]:
    """The Python handler that every system of `events-*` calls per event, and what it has counted."""
    seen = 0

    def handler(_event: object) -> None:
        nonlocal seen
        seen += 1

    return handler, lambda: seen


def counting_batch_handler() -> tuple[Handler, Callable[[], int]]:
    """The same for a sequence of events."""
    seen = 0

    def handler(events: Sequence[object]) -> None:
        nonlocal seen
        seen += len(events)

    return handler, lambda: seen


def joined(*parts: str) -> str:
    """A note of several parts, the empty ones left out."""
    return "; ".join(part for part in parts if part)
