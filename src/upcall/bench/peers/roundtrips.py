"""There and back over two links: `roundtrip-polling`, `roundtrip-parked`."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import Any, Final

from ..measure import Board, Placing, Role, count_for, run_roles
from ..sample import MESSAGE, Measurement, Sample
from .job import WARM_UP, counting_handler, joined, made, sampled
from .link import Link, MakeLink, ReceiveEnd, SendEnd

POLL_BLOCK: Final = 8
"""Round trips between two looks at the clock while polling: a look costs a tenth of a trip."""


def round_trip(
    row: str, system: str, make: MakeLink, note: str = "", *, polling: bool = False, full: int | None = None
) -> Measurement:
    """us there and back over two links. Polling ones are timed in blocks."""
    per_block = POLL_BLOCK if polling else 1
    trips = full or (20_000 if polling else 3_000)

    def measure(scale: float) -> Sample:
        placing = Placing.of()
        blocks = count_for(trips, scale, 16) // per_block
        run = partial(_round_trip_run, make, placing, polling, blocks, per_block)
        how = f"timed in blocks of {per_block}" if polling else ""
        return sampled(row, system, placing, scale, run, joined(how, note))

    return measure


def _round_trip_run(make: MakeLink, placing: Placing, polling: bool, blocks: int, per_block: int) -> Iterable[float]:
    with made([partial(make, len(MESSAGE))] * 2, 2) as ((there, back), board):
        total = WARM_UP + blocks * per_block
        how = (polling, placing.shared)
        roles = (
            Role("sender", placing.senders[0], partial(_ping, there, back, board, *how, blocks, per_block)),
            Role("receiver", placing.receiver, partial(_pong, there, back, board, *how, total)),
        )
        means: Iterable[float] = run_roles(roles)[0]
        return means


def _waiter(end: ReceiveEnd, polling: bool, shared: bool) -> Callable[[], Any]:
    """How a side waits for the next message."""
    if not polling:
        return end.take
    poll = end.poll
    assert poll is not None
    if shared:

        def polite() -> Any:
            while (message := poll()) is None:
                os.sched_yield()
            return message

        return polite

    def spin() -> Any:
        while (message := poll()) is None:
            pass
        return message

    return spin


def _open_both(out: Link, into: Link, board: Board, party: int) -> tuple[SendEnd, ReceiveEnd]:
    receive = into.receiver()
    board.meet(party)
    send = out.sender()
    board.meet(party)
    return send, receive


def _ping(
    there: Link, back: Link, board: Board, polling: bool, shared: bool, blocks: int, per_block: int
) -> array[float]:
    out, into = _open_both(there, back, board, 0)
    send = out.send
    wait = _waiter(into, polling, shared)
    handler, _ = counting_handler()
    now = time.perf_counter_ns
    means = array("d")
    for _ in repeat(None, WARM_UP):
        send(MESSAGE)
        handler(wait())
    for _ in repeat(None, blocks):
        begin = now()
        for _ in repeat(None, per_block):
            send(MESSAGE)
            handler(wait())
        means.append((now() - begin) / per_block / 1e3)
    board.meet(0)
    out.close()
    into.close()
    return means


def _pong(there: Link, back: Link, board: Board, polling: bool, shared: bool, total: int) -> None:
    out, into = _open_both(back, there, board, 1)
    send = out.send
    wait = _waiter(into, polling, shared)

    def handler(_event: object) -> None:
        send(MESSAGE)

    for _ in repeat(None, total):
        handler(wait())
    board.meet(1)
    out.close()
    into.close()
