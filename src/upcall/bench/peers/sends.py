"""What a send costs while the receiver is busy: `send-message`, `send-payload`, `send-bit`.

The receiver works in Python on its own CPU and never looks at the channel while the clock runs. A channel holds only so
much, so the sender fills it in rounds, and between them the receiver drains, unmeasured.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from ..measure import Board, Placing, Role, count_for, run_roles, time_calls, time_sends
from ..sample import Measurement, Sample
from .job import joined, made, sampled
from .link import Link, MakeLink, nothing

BLOCK: Final = 64
"""Sends between two looks at the clock, or fewer where the channel holds fewer."""

_BLOCKS: Final = f"timed in blocks of {BLOCK}"

# The words of a board, beside those it meets with.
_SENT, _DRAINED, _OVER = range(3)


def send_cost(
    row: str, system: str, make: MakeLink, message: bytes, note: str = "", *, full: int = 40_000
) -> Measurement:
    """ns per `send` of `message` in rounds: fill while the receiver is busy, let it drain unmeasured, again."""

    def measure(scale: float) -> Sample:
        placing = Placing.of()
        run = partial(_send_cost_run, make, message, placing, count_for(full, scale, BLOCK))
        return sampled(row, system, placing, scale, run, joined("receiver does not drain", _BLOCKS, note))

    return measure


def _send_cost_run(make: MakeLink, message: bytes, placing: Placing, total: int) -> Iterable[float]:
    with made([partial(make, len(message))], 2) as ((link,), board):
        per_block = min(BLOCK, link.room)
        blocks = max(1, min(link.room, total) // per_block)
        rounds = max(1, total // (blocks * per_block))
        roles = (
            Role("sender", placing.senders[0], partial(_fill, link, board, message, rounds, blocks, per_block)),
            Role("receiver", placing.receiver, partial(_stay_busy, link, board, placing.shared)),
        )
        means: Iterable[float] = run_roles(roles)[0]
        return means


def _fill(link: Link, board: Board, message: bytes, rounds: int, blocks: int, per_block: int) -> array[float]:
    board.meet(0)
    end = link.sender()
    words = board.words
    means = array("d")
    sent = 0
    for lap in range(rounds + 1):
        taken = time_sends(end.send, message, blocks, per_block)
        if lap:  # the first one touches the memory
            means += taken
        sent += blocks * per_block
        words[_SENT] = sent
        while words[_DRAINED] < sent:
            time.sleep(0)
    words[_OVER] = 1
    board.meet(0)
    end.close()
    return means


def _stay_busy(link: Link, board: Board, shared: bool) -> None:
    """Works in Python and looks at the channel only between the sender's rounds."""
    end = link.receiver()
    board.meet(1)
    words = board.words
    drained = 0
    while not words[_OVER]:
        sent = words[_SENT]
        if sent != drained:
            end.handle(_ignore, sent - drained)
            words[_DRAINED] = drained = sent
        elif shared:
            os.sched_yield()
    board.meet(1)
    end.close()


def _ignore(_message: object) -> None:
    pass


@dataclass(frozen=True)
class BitEnd:
    """What a role holds of a notification: how to set it (the receiver never does), and how to let go of it."""

    set: Callable[[], object] = nothing
    close: Callable[[], object] = nothing


class Bit(Protocol):
    """A notification without a message, made before the fork. The receiver opens its end first."""

    def setter(self) -> BitEnd:
        """Opens the notifying side, in the sender's process."""
        ...

    def receiver(self) -> BitEnd:
        """Opens the side that will be notified, in its process; it stays open and never looks."""
        ...

    def destroy(self) -> None:
        """Removes the notification, in the parent, when both processes have ended."""
        ...


MakeBit = Callable[[], Bit]


def bit_cost(system: str, make: MakeBit, note: str = "", *, full: int = 200_000) -> Measurement:
    """ns per notification of a busy receiver that has not consumed the one before."""

    def measure(scale: float) -> Sample:
        placing = Placing.of()
        run = partial(_bit_cost_run, make, placing, count_for(full, scale, BLOCK))
        return sampled("send-bit", system, placing, scale, run, joined("receiver does not look", _BLOCKS, note))

    return measure


def _bit_cost_run(make: MakeBit, placing: Placing, total: int) -> Iterable[float]:
    board = Board(2)
    bit = make()
    try:
        roles = (
            Role("sender", placing.senders[0], partial(_set_again, bit, board, total)),
            Role("receiver", placing.receiver, partial(_never_look, bit, board, placing.shared)),
        )
        means: Iterable[float] = run_roles(roles)[0]
        return means
    finally:
        bit.destroy()
        board.close()


def _set_again(bit: Bit, board: Board, total: int) -> array[float]:
    board.meet(0)
    end = bit.setter()
    time_calls(end.set, 1, BLOCK)
    means = time_calls(end.set, total // BLOCK, BLOCK)
    board.words[_OVER] = 1
    board.meet(0)
    end.close()
    return means


def _never_look(bit: Bit, board: Board, shared: bool) -> None:
    end = bit.receiver()
    board.meet(1)
    words = board.words
    while not words[_OVER]:
        if shared:
            os.sched_yield()
    board.meet(1)
    end.close()
