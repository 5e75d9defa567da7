"""There and back between two event loops over pipes: `loop-awake`, `loop-parked`. What a program does without upcall: the
loop watches the pipe (`add_reader`), its callback puts what came into an `asyncio.Queue`, and starts a task for it."""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections.abc import Iterable
from functools import partial

from ..measure import Placing, Role, count_for, run_roles
from ..sample import MESSAGE, Measurement, Sample
from .job import WARM_UP, sampled
from .roundtrips import POLL_BLOCK

PAUSE_S = 0.001
"""Before each trip between loops that sleep."""


def loop_trip(row: str, system: str, *, awake: bool) -> Measurement:
    """us there and back. Those between loops that are awake are timed in blocks."""
    per_block = POLL_BLOCK if awake else 1

    def measure(scale: float) -> Sample:
        placing = Placing.of()
        blocks = count_for(10_000 if awake else 2_000, scale, 16) // per_block
        run = partial(_run, placing, awake, blocks, per_block)
        return sampled(row, system, placing, scale, run, "add_reader, an asyncio.Queue, a task each")

    return measure


def _run(placing: Placing, awake: bool, blocks: int, per_block: int) -> Iterable[float]:
    there, back = os.pipe(), os.pipe()
    try:
        roles = (
            Role("sender", placing.senders[0], partial(_ping, there[1], back[0], awake, blocks, per_block)),
            Role("receiver", placing.receiver, partial(_pong, back[1], there[0], awake, WARM_UP + blocks * per_block)),
        )
        means: Iterable[float] = run_roles(roles)[0]
        return means
    finally:
        for fd in (*there, *back):
            os.close(fd)


class _Ends:
    """One side, in its loop: messages come out of a queue."""

    def __init__(self, reader: int, awake: bool) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, lambda: self.queue.put_nowait(os.read(reader, len(MESSAGE))))
        self.busy = loop.create_task(_busy()) if awake else None

    async def each(self, count: int, handle: partial[int]) -> None:
        """A task for each message."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            message = await self.queue.get()
            await loop.create_task(_handle(handle, message))


async def _pause(awake: bool) -> None:
    """Before a trip between sleepers: until both are asleep, as they may not be yet after a quick answer."""
    if not awake:
        await asyncio.sleep(PAUSE_S)


async def _busy() -> None:
    while True:
        await asyncio.sleep(0)


async def _handle(handle: partial[int], message: bytes) -> None:
    handle(message)


def _ping(writer: int, reader: int, awake: bool, blocks: int, per_block: int) -> array[float]:
    means = array("d")
    write = partial(os.write, writer)

    async def main() -> None:
        ends = _Ends(reader, awake)
        os.write(writer, MESSAGE)
        await ends.each(WARM_UP - 1, write)
        await ends.each(1, partial(len))
        for _ in range(blocks):
            await _pause(awake)
            begin = time.perf_counter_ns()
            os.write(writer, MESSAGE)
            await ends.each(per_block - 1, write)
            await ends.each(1, partial(len))
            means.append((time.perf_counter_ns() - begin) / per_block / 1e3)

    asyncio.run(main())
    return means


def _pong(writer: int, reader: int, awake: bool, total: int) -> None:
    async def main() -> None:
        await _Ends(reader, awake).each(total, partial(os.write, writer))

    asyncio.run(main())
