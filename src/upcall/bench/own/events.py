"""Events per second, from the first send to the last handler's return: `events-1-1`, `events-2-1`, `events-many-1-1`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import repeat

import upcall

from ..measure import Board, Placing, Role, count_for, run_roles
from ..peers.job import counting_batch_handler, counting_handler, joined, sampled
from ..sample import BATCH, MESSAGE, Measurement, Sample, batch_of
from .running import NAME, new_proc, started, until, without_collector

_ENDS, _SEEN, _LAST = range(3)  # words of the board


def rows() -> Mapping[str, Measurement]:
    """The rows of this file."""
    many = "send_many of 1024, on_batch; events are made when looked at"
    return {
        "events-1-1": events("events-1-1"),
        "events-2-1": events("events-2-1", senders=2),
        "events-many-1-1": events("events-many-1-1", many, batch=BATCH, full=4_000_000),
    }


def events(row: str, note: str = "", *, senders: int = 1, batch: int = 0, full: int = 400_000) -> Measurement:
    """Events/s of one run. `batch`: events per call at both ends, 0 for one."""

    def measure(scale: float) -> Sample:
        placing = Placing.of(senders)
        each = count_for(full // senders, scale, 64)
        if batch:
            each = max(1, each // batch) * batch
        run = partial(_run, placing, each, batch)
        how = joined("receiver drains; a lap before has used the memory", note)
        return sampled(row, NAME, placing, scale, run, how, with_p99=False)

    return measure


def _run(placing: Placing, each: int, batch: int) -> Iterable[float]:
    senders = len(placing.senders)
    board = Board(senders)
    proc = _receiver(board, batch)
    try:
        with started(proc, placing.receiver):
            stream = partial(_stream, proc.name, board, senders, each, batch)
            begins = run_roles([Role(f"sender {i}", cpu, partial(stream, i)) for i, cpu in enumerate(placing.senders)])
            until(board, lambda words: words[_ENDS] == 2 * senders, "the receiver")
            seen, last = board.words[_SEEN], board.words[_LAST]
    finally:
        board.close()
    if seen != 2 * each * senders:
        raise RuntimeError(f"{seen} of {2 * each * senders} events arrived")
    return [each * senders / ((last - min(begins)) / 1e9)]


def _receiver(board: Board, batch: int) -> upcall.Proc:
    proc = new_proc()
    proc.queue("work")
    without_collector(proc)
    words = board.words
    if batch:
        handler, seen = counting_batch_handler()
        proc.on_batch("small", max=batch)(handler)
    else:
        handler, seen = counting_handler()
        proc.on("small")(handler)

    @proc.on("end")
    def end(_event: upcall.Event) -> None:
        """Behind all events of its sender, in the only vcore: their handlers have returned."""
        words[_LAST] = time.monotonic_ns()
        words[_SEEN] = seen()
        words[_ENDS] += 1

    return proc


def _stream(name: str, board: Board, senders: int, count: int, batch: int, party: int) -> int:
    """Sends `count` events twice, as fast as it can; returns when the second lap began."""
    with upcall.connect(name) as remote:
        queue = remote.queue("work")
        _lap(queue, count, batch)
        until(board, lambda words: words[_ENDS] == senders, "the first lap")
        board.meet(party)
        begin = time.monotonic_ns()
        _lap(queue, count, batch)
        return begin


def _lap(queue: upcall.Queue, count: int, batch: int) -> None:
    if batch:
        send_many = queue.send_many
        messages = batch_of(batch)
        for _ in repeat(None, count // batch):
            send_many("small", messages)
    else:
        send = queue.send
        for message in repeat(MESSAGE, count):
            send("small", message)
    queue.send("end")
