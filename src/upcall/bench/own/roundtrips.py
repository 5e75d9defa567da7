"""There and back between two processes, a Python handler on each side: `roundtrip-polling`, `roundtrip-parked`."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import upcall

from ..measure import Placing, count_for
from ..peers.job import WARM_UP, joined, sampled
from ..peers.roundtrips import POLL_BLOCK
from ..sample import MESSAGE, Measurement, Sample
from .running import NAME, Finish, new_proc, started, without_collector

_FOREVER_US: Final = 10_000_000
_SMALL: Final = "16 MiB"


def rows() -> Mapping[str, Measurement]:
    """The rows of this file."""
    return {
        "roundtrip-polling": round_trip("roundtrip-polling", polling=True, full=100_000),
        "roundtrip-parked": round_trip("roundtrip-parked", polling=False, full=3_000),
    }


def round_trip(row: str, *, polling: bool, full: int) -> Measurement:
    """us there and back. Polling ones are timed in blocks, as the peers' are."""
    how = f"spin_us={_FOREVER_US}; timed in blocks of {POLL_BLOCK}" if polling else "spin_us=0"
    return in_blocks(row, partial(_run, polling), polling, full, joined(how, "both sides are vcores"))


def in_blocks(
    row: str, run: Callable[[Placing, int, int], Iterable[float]], awake: bool, full: int, notes: str
) -> Measurement:
    """`run(placing, blocks, per_block)` at a scale: several trips are timed together if both sides are awake."""
    per_block = POLL_BLOCK if awake else 1

    def measure(scale: float) -> Sample:
        placing = Placing.of()
        blocks = count_for(full, scale, 16) // per_block
        return sampled(row, NAME, placing, scale, partial(run, placing, blocks, per_block), notes)

    return measure


class Times:
    """Shared room for what the pinging worker measures."""

    def __init__(self, count: int) -> None:
        self._map = mmap.mmap(-1, 8 * count)
        self.words = memoryview(self._map).cast("d")

    def close(self) -> None:
        self.words.release()
        self._map.close()


def _run(polling: bool, placing: Placing, blocks: int, per_block: int) -> Iterable[float]:
    if polling and placing.shared:
        raise RuntimeError("needs two CPUs: a vcore that spins does not yield")
    times, finish = Times(blocks), Finish()
    spin_us = _FOREVER_US if polling else 0
    here, there = new_proc(spin_us=spin_us, memory=_SMALL), new_proc(spin_us=spin_us, memory=_SMALL)
    _define_ping(here, there.name, times.words, finish, blocks, per_block)
    _define_pong(there, here.name)
    try:
        with started(here, placing.senders[0]), started(there, placing.receiver):
            with upcall.connect(here.name) as remote:
                remote.queue("work").send("go")
            finish.wait("the two processes")
            return list(times.words)
    finally:
        finish.close()
        times.close()


def _define_ping(
    proc: upcall.Proc, other: str, times: memoryview[float], finish: Finish, blocks: int, per_block: int
) -> None:
    proc.queue("work")
    without_collector(proc)
    send: Callable[..., Any]
    now = time.perf_counter_ns
    trips = -WARM_UP - 1
    begin = 0

    @proc.on("go")
    def go(_event: upcall.Event) -> None:
        nonlocal send
        send = upcall.connect(other).queue("work").send
        send("hello")

    @proc.on("pong")
    def pong(_event: upcall.Event) -> None:
        nonlocal trips, begin
        trips += 1
        if trips >= 0 and not trips % per_block:
            end = now()
            if trips:
                times[trips // per_block - 1] = (end - begin) / per_block / 1e3
            if trips == blocks * per_block:
                finish.say()
                return
            begin = now()
        send("ping", MESSAGE)


def _define_pong(proc: upcall.Proc, other: str) -> None:
    proc.queue("work")
    without_collector(proc)
    send: Callable[..., Any]

    @proc.on("hello")
    def hello(_event: upcall.Event) -> None:
        nonlocal send
        send = upcall.connect(other).queue("work").send
        send("pong", MESSAGE)

    @proc.on("ping")
    def ping(_event: upcall.Event) -> None:
        send("pong", MESSAGE)
