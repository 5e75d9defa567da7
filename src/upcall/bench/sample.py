"""What the benchmark measures: the rows of its table, and the shape of one measured value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

MESSAGE: Final = b"0123456789abcdef"
"""The small message: what fits a slot, as the one of a queue that carries ids."""

PAYLOAD: Final = bytes(range(256)) * 4
"""The 1 KiB message of `send-payload`."""

BATCH: Final = 1024
"""Events that `events-many-1-1` hands over in one call, at both ends."""


def batch_of(count: int) -> list[bytes]:
    """`count` small messages, no two alike: pickle would send the second of two equal objects as a reference."""
    return [i.to_bytes(len(MESSAGE), "little") for i in range(count)]


@dataclass(frozen=True)
class Row:
    """One row of the table: the same job for every system.

    `per_second` is True where more is better; everywhere else a value is a time, and less is better.
    """

    name: str
    unit: str
    what: str
    per_second: bool = False


ROWS: Final[Mapping[str, Row]] = {
    row.name: row
    for row in (
        Row("send-bit", "ns", "set a bit that is already set; the receiver is busy and does not look"),
        Row("send-message", "ns", "send 16 bytes; the receiver is busy and does not drain meanwhile"),
        Row("send-payload", "ns", "send 1 KiB; the receiver is busy and does not drain meanwhile"),
        Row("events-1-1", "events/s", "16-byte events, one send and one Python handler call each; drained", True),
        Row("events-2-1", "events/s", "the same from two senders into one receiver; drained", True),
        Row("events-many-1-1", "events/s", "16-byte events, handed over and handled 1024 at a time; drained", True),
        Row("roundtrip-polling", "us", "there and back, both sides polling, a Python handler call on each"),
        Row("roundtrip-parked", "us", "there and back, both sides asleep until woken"),
        Row("loop-awake", "us", "there and back between two event loops that are awake, an async def handler on each"),
        Row("loop-parked", "us", "the same between loops that sleep until woken"),
        Row("wake-parked", "us", "from the sender's call to the first line of the handler of a receiver that slept"),
        Row("interrupt", "us", "from the sender's call to the first line of a handler, into a pure Python loop"),
        Row("tasks-1", "tasks/s", "no-op tasks of an executor with one worker, up to 1,000 outstanding", True),
        Row("tasks-2", "tasks/s", "the same with two workers", True),
        Row("task-polling", "us", "submit one no-op task and get its result, again and again"),
        Row("task-parked", "us", "the same, with a pause before each: everybody sleeps"),
        Row("task-array", "us", "an array of 8 MiB in, its sum out"),
        Row("map-million", "items/s", "map over 1,000,000 integers, one task each, two workers", True),
        Row("idle-cpu", "ticks", "CPU time of a process that waits, over 10 s, all its workers together"),
        Row("worker-memory", "MB", "memory of a worker's own, beyond a bare forked Python's"),
    )
}


@dataclass(frozen=True)
class Sample:
    """One measured value: a row, for a system, on this machine.

    `median` and `p99` are in `unit`, over all timings of `runs` fresh sets of processes; `p99` is None where a run
    yields one number only. `note` says what a reader must know to compare. A system that failed or hung in this row has
    no value: `median` is NaN and `note` says why.
    """

    row: str
    system: str
    unit: str
    median: float
    p99: float | None
    runs: int
    pinning: str
    note: str

    @property
    def measured(self) -> bool:
        """Is there a value?"""
        return not math.isnan(self.median)

    def as_dict(self) -> dict[str, str | float | int | None]:
        """The sample for JSON, which knows no NaN: `median` is null where nothing was measured."""
        return dataclasses.asdict(self) | {"median": self.median if self.measured else None}


Measurement = Callable[[float], Sample]
"""Measures one row at a scale: 1.0 is the full size, less is shorter and less exact. Always returns, raises nothing
but KeyboardInterrupt, and leaves no process, file or shared memory behind."""


class System(Protocol):
    """Something that delivers events between processes, and the rows of the table that it can do."""

    @property
    def name(self) -> str:
        """The column's name."""
        ...

    def available(self) -> str | None:
        """Why this system cannot be measured here, with the way out; None if it can. Cheap: imports nothing heavy."""
        ...

    def rows(self) -> Mapping[str, Measurement]:
        """The rows that this system can do, by their names in :data:`ROWS`."""
        ...
