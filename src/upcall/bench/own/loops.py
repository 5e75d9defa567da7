"""There and back between two event loops, an `async def` handler on each side: `loop-awake`, `loop-parked`."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import upcall

from ..measure import Placing, count_for
from ..peers.job import WARM_UP, sampled
from ..peers.roundtrips import POLL_BLOCK
from ..sample import MESSAGE, Measurement, Sample
from .roundtrips import Times
from .running import NAME, Finish, new_proc, started


def rows() -> Mapping[str, Measurement]:
    """The rows of this file."""
    return {
        "loop-awake": _measurement("loop-awake", awake=True, full=10_000),
        "loop-parked": _measurement("loop-parked", awake=False, full=2_000),
    }


def _measurement(row: str, *, awake: bool, full: int) -> Measurement:
    per_block = POLL_BLOCK if awake else 1

    def measure(scale: float) -> Sample:
        placing = Placing.of()
        blocks = count_for(full, scale, 16) // per_block
        run = partial(_run, placing, awake, blocks, per_block)
        return sampled(row, NAME, placing, scale, run, "async def handlers, a task each")

    return measure


def _run(placing: Placing, awake: bool, blocks: int, per_block: int) -> Iterable[float]:
    times, finish = Times(blocks), Finish()
    here, there = new_proc(memory="16 MiB"), new_proc(memory="16 MiB")
    for proc in (here, there):
        proc.main(_busy if awake else _quiet)
    _define_ping(here, there.name, times.words, finish, blocks, per_block)
    _define_pong(there, here.name)
    try:
        with started(here, placing.senders[0]), started(there, placing.receiver):
            with upcall.connect(here.name) as remote:
                remote.queue("work").send("go")
            finish.wait("the two loops")
            return list(times.words)
    finally:
        finish.close()
        times.close()


async def _quiet() -> None:
    """No garbage collection: as in every role of a peer."""
    gc.disable()


async def _busy() -> None:
    """Something else to do: the loop does not sleep."""
    gc.disable()
    while True:
        await asyncio.sleep(0)


def _define_ping(
    proc: upcall.Proc, other: str, times: memoryview[float], finish: Finish, blocks: int, per_block: int
) -> None:
    proc.queue("work")
    send: Callable[..., Any]
    trips = -WARM_UP - 1
    begin = 0

    @proc.on("go")
    async def go(_event: upcall.Event) -> None:
        nonlocal send
        send = upcall.connect(other).queue("work").send
        send("hello")

    @proc.on("pong")
    async def pong(_event: upcall.Event) -> None:
        nonlocal trips, begin
        trips += 1
        if trips >= 0 and not trips % per_block:
            end = time.perf_counter_ns()
            if trips:
                times[trips // per_block - 1] = (end - begin) / per_block / 1e3
            if trips == blocks * per_block:
                finish.say()
                return
            begin = time.perf_counter_ns()
        send("ping", MESSAGE)


def _define_pong(proc: upcall.Proc, other: str) -> None:
    proc.queue("work")
    send: Callable[..., Any]

    @proc.on("hello")
    async def hello(_event: upcall.Event) -> None:
        nonlocal send
        send = upcall.connect(other).queue("work").send
        send("pong", MESSAGE)

    @proc.on("ping")
    async def ping(_event: upcall.Event) -> None:
        send("pong", MESSAGE)
