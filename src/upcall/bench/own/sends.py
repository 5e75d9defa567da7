"""What a send costs while the receiver is busy: `send-message`, `send-payload`, `send-bit`.

Busy means that its only vcore sits in a handler that works in Python. The sender fills the queue in rounds; a round's
messages are handled before the next one begins, so that only the first round meets memory that nobody has used.
"""

from __future__ import annotations

import dataclasses
import os
from array import array
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import upcall

from ..measure import Board, Placing, Role, count_for, median, run_roles, time_sends, time_typed
from ..peers.job import joined, sampled
from ..peers.sends import BLOCK
from ..sample import MESSAGE, PAYLOAD, Measurement, Sample
from .running import NAME, new_proc, started, until, without_collector

ROUND: Final = 64 * BLOCK
"""Messages that wait at most: as many as the roomier peers hold."""

_BUSY, _ROUND, _OVER = range(3)  # words of the board
_NOMSG: Final = upcall.EventFlag.NOMSG | upcall.EventFlag.IPI | upcall.EventFlag.INDIR | upcall.EventFlag.FALLBACK


def rows() -> Mapping[str, Measurement]:
    """The rows of this file."""
    return {
        "send-bit": bit_cost(),
        "send-message": send_cost("send-message", MESSAGE),
        "send-payload": send_cost("send-payload", PAYLOAD),
    }


def send_cost(row: str, message: bytes, *, full: int = 80_000) -> Measurement:
    """ns per `send` of `message`."""

    def measure(scale: float) -> Sample:
        placing = Placing.of()
        cold: list[float] = []
        rounds = max(1, count_for(full, scale, BLOCK) // ROUND)
        blocks = min(ROUND, count_for(full, scale, BLOCK)) // BLOCK
        run = partial(_run, partial(_fill, message, rounds, blocks), placing, cold)
        note = f"receiver in a handler, does not drain; timed in blocks of {BLOCK}; memory used before"
        return _with_cold(sampled(row, NAME, placing, scale, run, note), cold)

    return measure


def bit_cost(*, full: int = 200_000) -> Measurement:
    """ns per `send` of a type whose bit is set."""

    def measure(scale: float) -> Sample:
        placing = Placing.of()
        run = partial(_run, partial(_set_again, count_for(full, scale, BLOCK) // BLOCK), placing, [])
        return sampled("send-bit", NAME, placing, scale, run, f"receiver in a handler; timed in blocks of {BLOCK}")

    return measure


def _with_cold(sample: Sample, cold: list[float]) -> Sample:
    first = f"first use of the memory: {median(cold):.0f} ns" if cold and sample.measured else ""
    return dataclasses.replace(sample, note=joined(sample.note, first))


Sending = Callable[[str, Board], tuple["array[float]", "array[float]"]]
"""The sender's whole life: from the process's name and the board to what the first round took, and all others."""


def _run(sending: Sending, placing: Placing, cold: list[float]) -> array[float]:
    board = Board(1)
    proc = _receiver(board, placing.shared)
    try:
        with started(proc, placing.receiver):
            try:
                first, means = run_roles([Role("sender", placing.senders[0], partial(sending, proc.name, board))])[0]
            finally:
                board.words[_OVER] = 1
    finally:
        board.close()
    cold.extend(first)
    result: array[float] = means
    return result


def _receiver(board: Board, shared: bool) -> upcall.Proc:
    proc = new_proc()
    proc.queue("work")
    proc.queue("bits", flags=_NOMSG)
    without_collector(proc)
    words = board.words

    @proc.on("hold")
    def hold(event: upcall.Event) -> None:
        """Keeps the vcore busy until the round of this number is over."""
        number = event.arg3
        words[_BUSY] = number
        while words[_ROUND] < number and not words[_OVER]:
            if shared:
                os.sched_yield()

    @proc.on("small")
    def small(_event: upcall.Event) -> None:
        pass

    return proc


def _fill(message: bytes, rounds: int, blocks: int, name: str, board: Board) -> tuple[array[float], array[float]]:
    first, means = array("d"), array("d")
    with upcall.connect(name) as remote:
        send = remote.queue("work").send
        send("hold", arg3=1)
        for number in range(1, rounds + 2):
            # It holds: everything that was sent before has been handled.
            until(board, lambda words, number=number: words[_BUSY] == number, "the receiver")  # type: ignore[misc]
            taken = time_typed(send, "small", message, blocks, BLOCK)
            if number == 1:
                first = taken
            else:
                means += taken
            if number <= rounds:
                send("hold", arg3=number + 1)
            board.words[_ROUND] = number
    return first, means


def _set_again(blocks: int, name: str, board: Board) -> tuple[array[float], array[float]]:
    with upcall.connect(name) as remote:
        remote.queue("work").send("hold", arg3=1)
        until(board, lambda words: words[_BUSY] == 1, "the receiver")
        send = remote.queue("bits").send
        first = time_sends(send, "small", 1, BLOCK)
        return first, time_sends(send, "small", blocks, BLOCK)
