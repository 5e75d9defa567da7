"""One way, from before the send to the first line after the receiver's wake: `wake-parked`."""

from __future__ import annotations

import os
import random
import struct
import time
from array import array
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import Any

from ..measure import Board, Placing, Role, count_for, run_roles
from ..sample import MESSAGE, Measurement, Sample
from .job import made, sampled
from .link import Link, MakeLink


def one_way(send: Callable[[], Any], reader: int, count: int, factor: float) -> array[float]:
    """Sends `count` times, `factor` times 0.2 to 0.8 ms apart, and waits each time for the arrival: the monotonic ns as
    8 bytes in a pipe. us per send."""
    pauses = random.Random(1)
    times = array("d")
    for _ in repeat(None, count):
        time.sleep(factor * pauses.uniform(200e-6, 800e-6))
        begin = time.monotonic_ns()
        send()
        (arrived,) = struct.unpack("q", os.read(reader, 8))
        times.append((arrived - begin) / 1e3)
    return times


def wake(system: str, make: MakeLink, note: str = "", *, full: int = 1_000) -> Measurement:
    """us from before `send` to the first line of the handler of a receiver that slept."""

    def measure(scale: float) -> Sample:
        placing = Placing.of()
        run = partial(_run, make, placing, count_for(full, scale, 8))
        return sampled("wake-parked", system, placing, scale, run, note)

    return measure


def _run(make: MakeLink, placing: Placing, count: int) -> Iterable[float]:
    reader, writer = os.pipe()
    try:
        with made([partial(make, len(MESSAGE))], 2) as ((link,), board):
            roles = (
                Role("sender", placing.senders[0], partial(_send, link, board, reader, count)),
                Role("receiver", placing.receiver, partial(_receive, link, board, writer, count)),
            )
            times: Iterable[float] = run_roles(roles)[0]
            return times
    finally:
        os.close(reader)
        os.close(writer)


def _send(link: Link, board: Board, reader: int, count: int) -> array[float]:
    board.meet(0)
    end = link.sender()
    times = one_way(partial(end.send, MESSAGE), reader, count, 4)
    board.meet(0)
    end.close()
    return times


def _receive(link: Link, board: Board, writer: int, count: int) -> None:
    end = link.receiver()
    board.meet(1)
    take = end.take

    def handler(_event: object) -> None:
        now = time.monotonic_ns()
        os.write(writer, struct.pack("q", now))

    for _ in repeat(None, count):
        handler(take())
    board.meet(1)
    end.close()
