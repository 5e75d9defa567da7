"""The machine's own limits as columns of the table: compiled loops, same places, same run."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import struct
import time
from array import array
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from ..measure import Board, Placing, Role, count_for, run_roles, time_sends, time_typed
from ..sample import MESSAGE, Measurement, Sample, System
from .job import Peer, sampled
from .roundtrips import POLL_BLOCK
from .sends import BLOCK

_MISSING = "upcall.bench.limits is not compiled: pip install ."


def systems() -> list[System]:
    """A futex ping-pong, a cache-line ping-pong, a single-producer ring, a slot that is filled for nobody."""
    return [
        Peer(
            "C futex",
            {
                "roundtrip-parked": _round_trip("roundtrip-parked", "C futex", _futex_run, 3_000),
                "wake-parked": _round_trip("wake-parked", "C futex", _wake_run, 1_000, "compiled waits and wakes"),
            },
            _check,
        ),
        Peer("C line", {"roundtrip-polling": _round_trip("roundtrip-polling", "C line", _line_run, 200_000)}, _check),
        Peer("C ring", {"events-many-1-1": _ring("C ring", 20_000_000)}, _check),
        Peer(
            "C slot",
            {
                "send-bit": _call("send-bit", "a compiled method that fences and looks at a word", _time_marks),
                "send-message": _call("send-message", "a compiled method that fills a slot for nobody", _time_slots),
            },
            _check,
        ),
    ]


def _check() -> str | None:
    try:
        return None if _limits().COMPILED else _MISSING
    except ImportError:
        return _MISSING


def _limits() -> ModuleType:
    return import_module("..limits", __package__)


class _Page:
    """Zeroed memory that forked children share, and its address."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _limits().PAGE_BYTES)
        self._pin = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._pin)

    def close(self) -> None:
        del self._pin
        self._map.close()


def _run_pair(
    placing: Placing,
    sender: Callable[[int, Board], object],
    receiver: Callable[[int, Board], object],
    *,
    asleep: bool = False,
) -> list[object]:
    if placing.shared and not asleep:
        raise RuntimeError("needs two CPUs: neither side of a compiled loop yields")
    page, board = _Page(), Board(2)
    try:
        return run_roles(
            (
                Role("sender", placing.senders[0], partial(sender, page.address, board)),
                Role("receiver", placing.receiver, partial(receiver, page.address, board)),
            )
        )
    finally:
        board.close()
        page.close()


def _round_trip(
    row: str,
    system: str,
    run: Callable[[Placing, int], Iterable[float]],
    full: int,
    note: str = "compiled, no Python; one word each way",
) -> Measurement:
    def measure(scale: float) -> Sample:
        placing = Placing.of()
        return sampled(row, system, placing, scale, partial(run, placing, count_for(full, scale, 16)), note)

    return measure


def _futex_run(placing: Placing, trips: int) -> Iterable[float]:
    def ping(page: int, board: Board) -> array[float]:
        times = array("Q", bytes(8 * trips))
        board.meet(0)
        _limits().futex_ping(page, trips, times.buffer_info()[0])
        return array("d", (ns / 1e3 for ns in times))

    def pong(page: int, board: Board) -> None:
        board.meet(1)
        _limits().futex_pong(page, trips)

    times, _ = _run_pair(placing, ping, pong, asleep=True)
    assert isinstance(times, array)
    return times


def _wake_run(placing: Placing, count: int) -> Iterable[float]:
    reader, writer = os.pipe()

    def tell(page: int, board: Board) -> array[float]:
        pauses = random.Random(1)
        times = array("d")
        board.meet(0)
        for turn in range(1, count + 1):
            time.sleep(4 * pauses.uniform(200e-6, 800e-6))
            begin = _limits().futex_tell(page, turn)
            (arrived,) = struct.unpack("q", os.read(reader, 8))
            times.append((arrived - begin) / 1e3)
        return times

    def sleep(page: int, board: Board) -> None:
        board.meet(1)
        for turn in range(1, count + 1):
            os.write(writer, struct.pack("q", _limits().futex_await(page, turn)))

    try:
        times, _ = _run_pair(placing, tell, sleep, asleep=True)
    finally:
        os.close(reader)
        os.close(writer)
    assert isinstance(times, array)
    return times


def _call(row: str, note: str, timed: Callable[[Any, int], array[float]]) -> Measurement:
    def measure(scale: float) -> Sample:
        placing = Placing.of()
        blocks = count_for(200_000, scale, BLOCK) // BLOCK

        def call() -> array[float]:
            page = _Page()
            try:
                return timed(_limits().Slots(page.address), blocks)
            finally:
                page.close()

        def run() -> Iterable[float]:
            times: Iterable[float] = run_roles([Role("sender", placing.senders[0], call)])[0]
            return times

        return sampled(row, "C slot", placing, scale, run, f"{note}; timed in blocks of {BLOCK}")

    return measure


def _time_slots(slots: Any, blocks: int) -> array[float]:
    return time_typed(slots.send, "small", MESSAGE, blocks, BLOCK)


def _time_marks(slots: Any, blocks: int) -> array[float]:
    return time_sends(slots.mark, "small", blocks, BLOCK)


def _line_run(placing: Placing, trips: int) -> Iterable[float]:
    blocks = trips // POLL_BLOCK

    def ping(page: int, board: Board) -> array[float]:
        times = array("Q", bytes(8 * blocks))
        board.meet(0)
        _limits().line_ping(page, blocks, POLL_BLOCK, times.buffer_info()[0])
        return array("d", (ns / POLL_BLOCK / 1e3 for ns in times))

    def pong(page: int, board: Board) -> None:
        board.meet(1)
        _limits().line_pong(page, blocks * POLL_BLOCK)

    times, _ = _run_pair(placing, ping, pong)
    assert isinstance(times, array)
    return times


def _ring(system: str, full: int) -> Measurement:
    def measure(scale: float) -> Sample:
        placing = Placing.of()
        run = partial(_ring_run, placing, count_for(full, scale, 4096))
        note = "compiled, no Python; receiver drains one at a time"
        return sampled("events-many-1-1", system, placing, scale, run, note, with_p99=False)

    return measure


def _ring_run(placing: Placing, count: int) -> Iterable[float]:
    def fill(page: int, board: Board) -> int:
        board.meet(0)
        begin: int = _limits().ring_fill(page, count)
        return begin

    def drain(page: int, board: Board) -> int:
        board.meet(1)
        end: int = _limits().ring_drain(page, count)
        return end

    begin, end = _run_pair(placing, fill, drain)
    assert isinstance(begin, int)
    assert isinstance(end, int)
    return [count / ((end - begin) / 1e9)]
