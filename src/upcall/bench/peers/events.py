"""Events per second, from the first send to the last handler's return.

`events-1-1` and `events-2-1` send and handle them one by one, `events-many-1-1` hands over a list at each end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from itertools import repeat

from ..measure import Board, Placing, Role, count_for, run_roles
from ..sample import MESSAGE, Measurement, Sample, batch_of
from .job import WARM_UP, counting_batch_handler, counting_handler, joined, made, sampled
from .link import Link, MakeLink


def events(
    row: str,
    system: str,
    make: MakeLink,
    note: str = "",
    *,
    senders: int = 1,
    batch: int = 0,
    full: int = 200_000,
) -> Measurement:
    """Events/s from the first send's begin to the last handler's return. `batch`: events per call, 0 for one."""

    def measure(scale: float) -> Sample:
        placing = Placing.of(senders)
        each = count_for(full // senders, scale, 64)
        if batch:
            each = max(1, each // batch) * batch
        run = partial(_events_run, make, placing, each, batch)
        return sampled(row, system, placing, scale, run, joined("receiver drains", note), with_p99=False)

    return measure


def _events_run(make: MakeLink, placing: Placing, each: int, batch: int) -> Iterable[float]:
    senders = len(placing.senders)
    with made([partial(make, len(MESSAGE))], senders + 1) as ((link,), board):
        roles = [
            Role(f"sender {i}", cpu, partial(_stream, link, board, i, each, batch))
            for i, cpu in enumerate(placing.senders)
        ]
        roles.append(
            Role("receiver", placing.receiver, partial(_handle_all, link, board, senders, each * senders, batch))
        )
        *begins, end = run_roles(roles)
        return [each * senders / ((end - min(begins)) / 1e9)]


def _stream(link: Link, board: Board, party: int, count: int, batch: int) -> int:
    """Sends `count` events as fast as it can; returns when it began, in ns of the monotonic clock."""
    board.meet(party)
    end = link.sender()
    board.meet(party)
    for _ in repeat(None, WARM_UP):
        end.send(MESSAGE)
    board.meet(party)
    begin = time.monotonic_ns()
    if batch:
        send_many = end.send_many
        assert send_many is not None
        messages = batch_of(batch)
        for _ in repeat(None, count // batch):
            send_many(messages)
    else:
        send = end.send
        for message in repeat(MESSAGE, count):
            send(message)
    board.meet(party)
    end.close()
    return begin


def _handle_all(link: Link, board: Board, senders: int, count: int, batch: int) -> int:
    """Handles `count` events; returns when the last handler had returned."""
    end = link.receiver()
    board.meet(senders)
    board.meet(senders)
    for _ in repeat(None, WARM_UP * senders):
        end.take()
    board.meet(senders)
    if batch:
        assert end.run_many is not None
        handler, seen = counting_batch_handler()
        end.run_many(handler, count)
    else:
        handler, seen = counting_handler()
        end.handle(handler, count)
    finished = time.monotonic_ns()
    if seen() != count:
        raise RuntimeError(f"{seen()} of {count} events arrived")
    board.meet(senders)
    end.close()
    return finished
