"""`multiprocessing`: Pipe, SimpleQueue, Queue, as its documentation has them used."""

from __future__ import annotations

import multiprocessing
from functools import partial
from itertools import repeat
from multiprocessing.connection import Connection
from typing import Any, Final

from ..sample import BATCH, MESSAGE, PAYLOAD, System
from .events import events
from .job import Peer
from .link import Handler, MakeLink, ReceiveEnd, SendEnd
from .posix import fitting, widen
from .roundtrips import round_trip
from .sends import send_cost

_FORK: Final = multiprocessing.get_context("fork")

_OVERHEAD: Final = 64
"""More bytes than a message's length prefix and pickle frame add to it."""


class ConnectionLink:
    """A one-way `Pipe` moved by `send_bytes` and `recv_bytes`; batches as one pickled list."""

    def __init__(self, size: int) -> None:
        self._reader: Connection[Any, Any]
        self._writer: Connection[Any, Any]
        self._reader, self._writer = _FORK.Pipe(duplex=False)
        self.room = fitting(widen(self._writer.fileno()), size + _OVERHEAD)

    def sender(self) -> SendEnd:
        return SendEnd(self._writer.send_bytes, self._writer.send)

    def receiver(self) -> ReceiveEnd:
        return ReceiveEnd(self._reader.recv_bytes, run_many=partial(_run_lists, self._reader.recv))

    def destroy(self) -> None:
        self._reader.close()
        self._writer.close()


class SimpleQueueLink:
    """A `SimpleQueue`: a pipe with a lock at each end, and pickle."""

    def __init__(self, size: int) -> None:
        self._queue: Any = _FORK.SimpleQueue()
        # The pipe inside has the default size: its descriptor is not part of the interface.
        self.room = fitting(1 << 16, size + _OVERHEAD)

    def sender(self) -> SendEnd:
        return SendEnd(self._queue.put, self._queue.put)

    def receiver(self) -> ReceiveEnd:
        return ReceiveEnd(self._queue.get, run_many=partial(_run_lists, self._queue.get))

    def destroy(self) -> None:
        self._queue.close()


class QueueLink:
    """A `Queue`: `put` hands to a feeder thread, which pickles and writes the pipe."""

    room = 1024

    def __init__(self, _size: int) -> None:
        self._queue: Any = _FORK.Queue()

    def sender(self) -> SendEnd:
        return SendEnd(self._queue.put, self._queue.put, self._flush)

    def _flush(self) -> None:
        self._queue.close()
        self._queue.join_thread()

    def receiver(self) -> ReceiveEnd:
        return ReceiveEnd(self._queue.get, run_many=partial(_run_lists, self._queue.get))

    def destroy(self) -> None:
        self._queue.close()


def _run_lists(get: Any, handler: Handler, count: int) -> None:
    for _ in repeat(None, count // BATCH):
        handler(get())


def systems() -> list[System]:
    """mp.Pipe, mp.SimpleQueue, mp.Queue."""
    feeder = "a feeder thread pickles and writes"
    return [
        _peer("mp.Pipe", ConnectionLink, "send_bytes", "a pickled list of 1024", two_senders=False),
        _peer("mp.SimpleQueue", SimpleQueueLink, "", "put of a list of 1024", two_senders=True),
        _peer("mp.Queue", QueueLink, feeder, f"put of a list of 1024; {feeder}", two_senders=True),
    ]


def _peer(name: str, make: MakeLink, note: str, many_note: str, *, two_senders: bool) -> Peer:
    # Two processes may not write one Connection without a lock; a Connection with a lock is a SimpleQueue.
    two = {"events-2-1": events("events-2-1", name, make, note, senders=2, full=60_000)} if two_senders else {}
    return Peer(
        name,
        {
            "send-message": send_cost("send-message", name, make, MESSAGE, note, full=20_000),
            "send-payload": send_cost("send-payload", name, make, PAYLOAD, note, full=20_000),
            "events-1-1": events("events-1-1", name, make, note, full=60_000),
            **two,
            "events-many-1-1": events("events-many-1-1", name, make, many_note, batch=BATCH, full=1_000_000),
            "roundtrip-parked": round_trip("roundtrip-parked", name, make, note),
        },
    )
