"""faster-fifo: a ring in shared memory behind a process-shared mutex."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any, Final

from ..sample import BATCH, MESSAGE, PAYLOAD, System
from .events import events
from .job import Peer
from .link import Handler, ReceiveEnd, SendEnd, missing
from .roundtrips import round_trip
from .sends import send_cost

_RING_BYTES: Final = 4 << 20


class FifoLink:
    """A faster-fifo queue of bytes: with its own serializer, pickle, a put costs twice as much."""

    room = 1024

    def __init__(self, _size: int) -> None:
        fifo = import_module("faster_fifo")
        self._queue: Any = fifo.Queue(_RING_BYTES, loads=bytes, dumps=bytes)
        self._empty: type[Exception] = fifo.Empty

    def sender(self) -> SendEnd:
        return SendEnd(self._queue.put, self._queue.put_many)

    def receiver(self) -> ReceiveEnd:
        return ReceiveEnd(self._queue.get, self._poll, self._run, self._run_many)

    def _poll(self) -> Any | None:
        try:
            return self._queue.get_nowait()
        except self._empty:
            return None

    def _run(self, handler: Handler, count: int) -> None:
        get_many = self._queue.get_many
        while count > 0:
            messages = get_many()
            for message in messages:
                handler(message)
            count -= len(messages)

    def _run_many(self, handler: Handler, count: int) -> None:
        get_many = self._queue.get_many
        while count > 0:
            messages = get_many()
            handler(messages)
            count -= len(messages)

    def destroy(self) -> None:
        self._queue.close()


def systems() -> list[System]:
    """faster-fifo."""
    name = "faster-fifo"
    raw = "bytes unpickled"
    greedy = "get_many takes all there is"
    return [
        Peer(
            name,
            {
                "send-message": send_cost("send-message", name, FifoLink, MESSAGE, raw, full=20_000),
                "send-payload": send_cost("send-payload", name, FifoLink, PAYLOAD, raw, full=20_000),
                "events-1-1": events("events-1-1", name, FifoLink, f"{raw}; {greedy}", full=60_000),
                "events-2-1": events("events-2-1", name, FifoLink, f"{raw}; {greedy}", senders=2, full=60_000),
                "events-many-1-1": events(
                    "events-many-1-1", name, FifoLink, f"{raw}; put_many, {greedy}", batch=BATCH, full=200_000
                ),
                "roundtrip-polling": round_trip(
                    "roundtrip-polling", name, FifoLink, f"{raw}; get_nowait", polling=True, full=5_000
                ),
                "roundtrip-parked": round_trip("roundtrip-parked", name, FifoLink, raw),
            },
            partial(missing, "faster_fifo"),
        )
    ]
