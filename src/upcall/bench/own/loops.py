"""There and back between two event loops, an `async def` handler on each side: `loop-awake`, `loop-parked`."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import upcall

from ..measure import Placing
from ..peers.job import WARM_UP
from ..peers.loops import PAUSE_S
from ..sample import MESSAGE, Measurement
from .roundtrips import Times, in_blocks
from .running import Finish, new_proc, started

HOW: Final = "async def handlers, a task each"


def rows() -> Mapping[str, Measurement]:
    """The rows of this file."""
    return {
        "loop-awake": in_blocks("loop-awake", partial(_run, True), True, 10_000, HOW),
        "loop-parked": in_blocks("loop-parked", partial(_run, False), False, 2_000, HOW),
    }


def _run(awake: bool, placing: Placing, blocks: int, per_block: int) -> Iterable[float]:
    times, finish = Times(blocks), Finish()
    here, there = new_proc(memory="16 MiB"), new_proc(memory="16 MiB")
    for proc in (here, there):
        proc.main(_busy if awake else _quiet)
    _define_ping(here, there.name, times.words, finish, awake, blocks, per_block)
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
    proc: upcall.Proc, other: str, times: memoryview[float], finish: Finish, awake: bool, blocks: int, per_block: int
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
            if not awake:
                await asyncio.sleep(PAUSE_S)
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
