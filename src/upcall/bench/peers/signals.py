"""A raw signal: the cheapest way for one process to interrupt another's running Python code."""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from array import array
from functools import partial
from types import FrameType

from ..measure import Board, Placing, Role, count_for, run_roles
from ..sample import Measurement, Sample, System
from .job import Peer, sampled


def systems() -> list[System]:
    """SIGUSR1 into a Python loop."""
    return [Peer("signal", {"interrupt": interrupt("signal")})]


def interrupt(system: str, *, full: int = 400) -> Measurement:
    """us from before `os.kill` to the first line of the Python handler, in a child that runs a pure Python loop."""

    def measure(scale: float) -> Sample:
        placing = Placing.of()
        run = partial(_interrupt_run, placing, count_for(full, scale, 8))
        return sampled("interrupt", system, placing, scale, run, "os.kill(SIGUSR1); carries no message")

    return measure


def _interrupt_run(placing: Placing, count: int) -> array[float]:
    board = Board(2)
    reader, writer = os.pipe()
    try:
        roles = (
            Role("sender", placing.senders[0], partial(_kill, board, reader, count)),
            Role("receiver", placing.receiver, partial(_compute, board, writer)),
        )
        times: array[float] = run_roles(roles)[0]
        return times
    finally:
        os.close(reader)
        os.close(writer)
        board.close()


_PID, _OVER = range(2)


def _kill(board: Board, reader: int, count: int) -> array[float]:
    board.meet(0)
    pid = board.words[_PID]
    pauses = random.Random(1)
    times = array("d")
    for _ in range(count):
        time.sleep(pauses.uniform(200e-6, 800e-6))  # it is back in its loop, at any place of it
        begin = time.monotonic_ns()
        os.kill(pid, signal.SIGUSR1)
        (arrived,) = struct.unpack("q", os.read(reader, 8))
        times.append((arrived - begin) / 1e3)
    board.words[_OVER] = 1
    board.meet(0)
    return times


def _compute(board: Board, writer: int) -> None:
    """Pure Python work, as a handler of the program's own would find it."""

    def arrived(_signum: int, _frame: FrameType | None) -> None:
        now = time.monotonic_ns()
        os.write(writer, struct.pack("q", now))

    signal.signal(signal.SIGUSR1, arrived)
    words = board.words
    words[_PID] = os.getpid()
    board.meet(1)
    turns = 0
    while not words[_OVER]:
        turns += 1
    board.meet(1)
