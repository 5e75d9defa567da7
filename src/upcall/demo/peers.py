"""The same job with multiprocessing: the same lines, the same words, as many worker processes.

What one task is, is said with each: handing over lines one by one is what the demo does with upcall; hundreds of them
at a time is what one does with multiprocessing because one by one is slow. The slow ones get fewer lines.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Semaphore
from pathlib import Path

from .text import count, lines

SENDERS = 2
ONE_BY_ONE_MAX = 50_000
CHUNK = 500
WAITING_MAX = 10_000

context = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Timing:
    """How long somebody took for so many lines, and whether the words were counted right."""

    what: str
    events: int
    seconds: float
    equal: bool

    @property
    def events_per_s(self) -> float:
        """Lines per second."""
        return self.events / self.seconds


@dataclass(frozen=True)
class Peer:
    """One way to do it. `most`: only so many lines."""

    what: str
    most: int | None
    job: Callable[[list[bytes], int], tuple[float, Counter[bytes]]]

    def run(self, paths: list[Path], workers: int) -> Timing:
        """Does the job and checks the counts."""
        text = list(islice(chain.from_iterable(lines(paths)), self.most))
        expected: Counter[bytes] = Counter()
        for line in text:
            count(expected, line)
        seconds, counts = self.job(text, workers)
        return Timing(self.what, len(text), seconds, counts == expected)


counts: Counter[bytes] = Counter()
barrier: Barrier


def _init(shared: Barrier) -> None:
    global barrier  # noqa: PLW0603  (how a Pool's workers keep something from one task to the next)
    barrier = shared
    counts.clear()


def _count(line: bytes) -> None:
    count(counts, line)


def _report(_: int) -> Counter[bytes]:
    # As many reports as workers, and each waits for the others: so every worker makes exactly one.
    barrier.wait()
    return counts


def _pool(chunk: int) -> Callable[[list[bytes], int], tuple[float, Counter[bytes]]]:
    def job(text: list[bytes], workers: int) -> tuple[float, Counter[bytes]]:
        with context.Pool(workers, _init, (context.Barrier(workers),)) as pool:
            start = time.perf_counter()
            for _ in pool.imap_unordered(_count, text, chunk):
                pass
            seconds = time.perf_counter() - start
            return seconds, _sum(pool.imap_unordered(_report, range(workers)))

    return job


def _queue(text: list[bytes], workers: int) -> tuple[float, Counter[bytes]]:
    tasks: Queue[bytes | None] = context.Queue(WAITING_MAX)
    results: Queue[Counter[bytes]] = context.Queue()
    go, done = context.Semaphore(0), context.Semaphore(0)
    takers = [context.Process(target=_take, args=(tasks, results, done), daemon=True) for _ in range(workers)]
    givers = [context.Process(target=_give, args=(tasks, text[i::SENDERS], go), daemon=True) for i in range(SENDERS)]
    try:
        for process in (*takers, *givers):
            process.start()
        start = time.perf_counter()
        for _ in givers:
            go.release()
        for giver in givers:
            giver.join()
        for _ in takers:
            tasks.put(None)
        for _ in takers:
            done.acquire()
        seconds = time.perf_counter() - start
        return seconds, _sum(results.get() for _ in takers)
    finally:
        for process in (*takers, *givers):
            if process.pid is not None:
                process.terminate()
                process.join()
        tasks.close()
        results.close()


def _give(tasks: Queue[bytes | None], text: list[bytes], go: Semaphore) -> None:
    go.acquire()
    for line in text:
        tasks.put(line)


def _take(tasks: Queue[bytes | None], results: Queue[Counter[bytes]], done: Semaphore) -> None:
    mine: Counter[bytes] = Counter()
    while (line := tasks.get()) is not None:
        count(mine, line)
    done.release()
    results.put(mine)
    results.close()
    results.join_thread()


def _sum(found: Iterator[Counter[bytes]]) -> Counter[bytes]:
    total: Counter[bytes] = Counter()
    for one in found:
        total.update(one)
    return total


PEERS = (
    Peer("multiprocessing.Queue, one put per line", ONE_BY_ONE_MAX, _queue),
    Peer("multiprocessing.Pool.imap_unordered, one line per task", ONE_BY_ONE_MAX, _pool(1)),
    Peer(f"multiprocessing.Pool.imap_unordered, {CHUNK} lines per task", None, _pool(CHUNK)),
)
