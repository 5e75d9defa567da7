"""pyzmq: PUSH to PULL over a local socket, each side's I/O thread pinned with it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import repeat
from typing import Any, Final

from ..sample import BATCH, MESSAGE, PAYLOAD, System
from .events import events
from .job import Peer
from .link import Handler, ReceiveEnd, SendEnd, missing
from .roundtrips import round_trip
from .sends import send_cost

_LINGER_MS: Final = 1000
_numbers = itertools.count()


class ZmqLink:
    """PUSH/PULL on an abstract socket name, which leaves no file; no high-water mark, so that a send never waits."""

    room = 1024

    def __init__(self, size: int) -> None:
        self._size = size
        self._address = f"ipc://@upcall-bench-{os.getpid()}-{next(_numbers)}"

    def _socket(self, kind: str) -> tuple[Any, Any]:
        zmq = import_module("zmq")
        context = zmq.Context()
        socket = context.socket(getattr(zmq, kind))
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, 0)
        socket.set(zmq.LINGER, _LINGER_MS)
        return context, socket

    def sender(self) -> SendEnd:
        context, socket = self._socket("PUSH")
        socket.connect(self._address)
        return SendEnd(socket.send, lambda messages: socket.send(b"".join(messages)), partial(_close, context, socket))

    def receiver(self) -> ReceiveEnd:
        context, socket = self._socket("PULL")
        socket.bind(self._address)
        return ReceiveEnd(
            socket.recv, _poll(socket), None, partial(self._run_many, socket.recv), partial(_close, context, socket)
        )

    def _run_many(self, recv: Callable[[], bytes], handler: Handler, count: int) -> None:
        size = self._size
        for _ in repeat(None, count // BATCH):
            data = recv()
            handler([data[at : at + size] for at in range(0, len(data), size)])

    def destroy(self) -> None:
        pass


def _poll(socket: Any) -> Callable[[], Any | None]:
    # Asking for the socket's state is cheaper than the exception of a NOBLOCK receive that finds nothing.
    zmq = import_module("zmq")
    get, recv, state, readable, noblock = socket.get, socket.recv, zmq.EVENTS, int(zmq.POLLIN), zmq.NOBLOCK

    def poll() -> Any | None:
        return recv(noblock) if get(state) & readable else None

    return poll


def _close(context: Any, socket: Any) -> None:
    socket.close()
    context.term()


def systems() -> list[System]:
    """pyzmq."""
    name = "pyzmq"
    how = "PUSH/PULL over ipc"
    return [
        Peer(
            name,
            {
                "send-message": send_cost("send-message", name, ZmqLink, MESSAGE, how),
                "send-payload": send_cost("send-payload", name, ZmqLink, PAYLOAD, how),
                "events-1-1": events("events-1-1", name, ZmqLink, how),
                "events-2-1": events("events-2-1", name, ZmqLink, how, senders=2),
                "events-many-1-1": events(
                    "events-many-1-1",
                    name,
                    ZmqLink,
                    f"{how}; 1024 joined and cut by hand",
                    batch=BATCH,
                    full=2_000_000,
                ),
                "roundtrip-polling": round_trip(
                    "roundtrip-polling", name, ZmqLink, f"{how}; EVENTS, then NOBLOCK", polling=True, full=2_000
                ),
                "roundtrip-parked": round_trip("roundtrip-parked", name, ZmqLink, how),
            },
            partial(missing, "zmq"),
        )
    ]
