"""One way, into a vcore that sleeps or computes: `wake-parked`, `interrupt`."""

from __future__ import annotations

import gc
import os
import struct
import time
from array import array
from collections.abc import Mapping
from functools import partial

import upcall

from ..measure import Board, Placing, Role, count_for, run_roles
from ..peers.job import sampled
from ..peers.wakes import one_way
from ..sample import MESSAGE, Measurement, Sample
from .running import NAME, new_proc, started, without_collector

_OVER = 0  # a word of the board


def rows() -> Mapping[str, Measurement]:
    """The rows of this file."""
    return {
        "wake-parked": _measurement("wake-parked", "spin_us=0", full=1_000),
        "interrupt": _measurement(
            "interrupt", "a JUSTHANDLEIT queue; the loop runs in Proc.main; carries the message", full=400
        ),
    }


def _measurement(row: str, note: str, *, full: int) -> Measurement:
    def measure(scale: float) -> Sample:
        placing = Placing.of()
        run = partial(_run, placing, count_for(full, scale, 8), row == "interrupt")
        return sampled(row, NAME, placing, scale, run, note)

    return measure


def _run(placing: Placing, count: int, computing: bool) -> array[float]:
    board = Board(1)
    reader, writer = os.pipe()
    proc = _receiver(board, writer, computing)
    try:
        with started(proc, placing.receiver):
            try:
                role = Role("sender", placing.senders[0], partial(_send, proc.name, reader, count, computing))
                times: array[float] = run_roles([role])[0]
                return times
            finally:
                board.words[_OVER] = 1
    finally:
        os.close(reader)
        os.close(writer)
        board.close()


def _receiver(board: Board, writer: int, computing: bool) -> upcall.Proc:
    proc = new_proc(spin_us=0, memory="16 MiB")
    flags = upcall.EventFlag
    proc.queue("work", flags=flags.IPI | flags.INDIR | flags.FALLBACK | flags.JUSTHANDLEIT)
    words = board.words

    @proc.on("tick")
    def tick(_event: upcall.Event) -> None:
        now = time.monotonic_ns()
        os.write(writer, struct.pack("q", now))

    if not computing:
        without_collector(proc)
        return proc

    @proc.main
    def compute() -> None:
        gc.disable()
        turns = 0
        while not words[_OVER]:
            turns += 1

    return proc


def _send(name: str, reader: int, count: int, computing: bool) -> array[float]:
    with upcall.connect(name) as remote:
        # Back in its loop after a moment; asleep after a longer one.
        return one_way(partial(remote.queue("work").send, "tick", MESSAGE), reader, count, 1 if computing else 4)
