"""The other systems that a storm can be let loose on: each as one channel from some senders to some receivers.

Used as their documentation has them used, with their defaults. Everything of theirs is imported when it is asked for: they
are optional.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..front.event import Event
from ..proc import Proc
from .killer import children
from .target import REDELIVERIES_MAX

Note = Callable[[int, bytes], object]
"""What a receiver calls with its number and the message, when it has handled it."""

FORK = multiprocessing.get_context("fork")
POLL_S = 0.0005
"""How long who can only poll sleeps between two looks."""


def nothing() -> None:
    """What there is to do at the end of a sender that holds nothing back."""


class Channel(Protocol):
    """One channel. Made before the fork; each end is opened in the process that uses it."""

    def sender(self) -> tuple[Callable[[bytes], object], Callable[[], object]]:
        """Opens a sending end: `send`, and what ends it in good order."""
        ...

    def receive(self, receiver: int, note: Note) -> None:
        """A receiver's whole life: handles whatever comes, until it is killed."""
        ...

    def workers(self) -> list[tuple[int, int]] | None:
        """Pid and parent of the receivers, of a system that starts them itself; None: we fork them."""
        ...

    def close(self) -> None:
        """Removes the channel, when all its processes have ended, however they did."""
        ...


@dataclass(frozen=True)
class Peer:
    """A system, and how it is used here."""

    name: str
    how: str
    make: Callable[[Note], Channel]
    receivers: int = 2
    module: str | None = None
    lossy: bool = False
    """It throws messages away by design, even if nobody dies."""

    def missing(self) -> str | None:
        """Why it cannot be tried here; None if it can."""
        if self.module is None or find_spec(self.module):
            return None
        return f"{self.module} is not installed: pip install 'upcall[bench]'"


class Shared:
    """A queue object that all processes inherit, with `put` and `get`."""

    def __init__(self, make: Callable[[], Any], _note: Note) -> None:
        self.queue = make()

    def sender(self) -> tuple[Callable[[bytes], object], Callable[[], object]]:
        return self.queue.put, self._flush

    def _flush(self) -> None:
        if hasattr(self.queue, "join_thread"):
            self.queue.close()
            self.queue.join_thread()

    def receive(self, receiver: int, note: Note) -> None:
        while True:
            note(receiver, self.queue.get())

    def workers(self) -> None:
        return None

    def close(self) -> None:
        self.queue.close()


class Fifo(Shared):
    """faster-fifo: its `get` gives up after 10 s, and is called again."""

    def __init__(self, note: Note) -> None:
        self.module = import_module("faster_fifo")
        super().__init__(self.module.Queue, note)

    def receive(self, receiver: int, note: Note) -> None:
        while True:
            with suppress(self.module.Empty):
                note(receiver, self.queue.get())


class Zmq:
    """pyzmq: each receiver binds a PULL socket of its own, each sender connects a PUSH socket to all of them."""

    def __init__(self, receivers: int, _note: Note) -> None:
        self.zmq = import_module("zmq")
        self.folder = tempfile.mkdtemp(prefix="upcall-storm-")
        self.addresses = [f"ipc://{self.folder}/{receiver}" for receiver in range(receivers)]

    def sender(self) -> tuple[Callable[[bytes], object], Callable[[], object]]:
        context = self.zmq.Context()
        socket = context.socket(self.zmq.PUSH)
        for address in self.addresses:
            socket.connect(address)

        def close() -> None:
            socket.close()
            context.term()  # waits until all is handed over: the default

        return socket.send, close

    def receive(self, receiver: int, note: Note) -> None:
        socket = self.zmq.Context().socket(self.zmq.PULL)
        socket.bind(self.addresses[receiver])
        while True:
            note(receiver, socket.recv())

    def workers(self) -> None:
        return None

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class PubSub:
    """iceoryx2 publish/subscribe: every subscriber gets every message, so there is one. `overflow`: a full subscriber's
    oldest message makes room; without, the publisher tries again until it is delivered."""

    SIZE = 128
    SHM = Path("/dev/shm")

    def __init__(self, overflow: bool, _note: Note) -> None:
        self.iox = import_module("iceoryx2")
        self.overflow = overflow
        self.folder = tempfile.mkdtemp(prefix="upcall-storm-")
        self.prefix = f"{Path(self.folder).name}-"

    def service(self) -> Any:
        iox = self.iox
        iox.set_log_level(iox.LogLevel.Fatal)
        config = iox.config.global_config()
        config.global_cfg.prefix = iox.FileName.new(self.prefix)
        config.global_cfg.root_path = iox.Path.new(self.folder)
        mode = iox.SignalHandlingMode.Disabled
        node = iox.NodeBuilder.new().config(config).signal_handling_mode(mode).create(iox.ServiceType.Ipc)
        builder = node.service_builder(iox.ServiceName.new("storm")).publish_subscribe(ctypes.c_uint8 * self.SIZE)
        builder = builder.enable_safe_overflow(self.overflow).max_publishers(16).max_subscribers(16).max_nodes(32)
        return builder.subscriber_max_buffer_size(1024).open_or_create()

    def sender(self) -> tuple[Callable[[bytes], object], Callable[[], object]]:
        builder = self.service().publisher_builder()
        if not self.overflow:
            builder = builder.backpressure_strategy(self.iox.BackpressureStrategy.RetryUntilDelivered)
        publisher = builder.create()

        def send(message: bytes) -> None:
            sample = publisher.loan_uninit()
            ctypes.memmove(sample.payload_ptr, message, len(message))
            sample.assume_init().send()

        return send, publisher.delete

    def receive(self, receiver: int, note: Note) -> None:
        subscriber = self.service().subscriber_builder().create()
        while True:
            sample = subscriber.receive()
            if sample is None:
                time.sleep(POLL_S)
            else:
                note(receiver, ctypes.string_at(sample.payload_ptr, self.SIZE))

    def workers(self) -> None:
        return None

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self.SHM.glob(f"{self.prefix}*"):
            path.unlink(missing_ok=True)


class Own:
    """upcall: a process with as many vcores as the others have receivers."""

    QUEUE, TYPE = "messages", "message"

    def __init__(self, receivers: int, note: Note) -> None:
        self.proc = Proc(f"storm-{os.getpid()}", vcores=receivers)
        queue = self.proc.queue(self.QUEUE, max_redeliveries=REDELIVERIES_MAX)

        @self.proc.on(self.TYPE, queue=queue)
        def message(ev: Event) -> None:
            note(ev.vcore, bytes(ev.payload))

        self.proc.start()

    def sender(self) -> tuple[Callable[[bytes], object], Callable[[], object]]:
        from ..remote import connect

        remote = connect(self.proc.name)
        return partial(remote.queue(self.QUEUE).send, self.TYPE), remote.close

    def receive(self, receiver: int, note: Note) -> None:
        raise NotImplementedError

    def workers(self) -> list[tuple[int, int]]:
        supervisor = int(self.proc._running.pid)
        return [(pid, supervisor) for pid in children(supervisor)]

    def close(self) -> None:
        self.proc.stop("drain", 10.0)


def peers() -> dict[str, Peer]:
    """All of them by name, upcall first."""
    found = (
        Peer("upcall", "a work queue, 2 vcores", partial(Own, 2)),
        Peer("mp.Queue", "put and get", partial(Shared, FORK.Queue)),
        Peer("mp.SimpleQueue", "put and get", partial(Shared, FORK.SimpleQueue)),
        Peer("faster-fifo", "put and get", Fifo, module="faster_fifo"),
        Peer("pyzmq", "PUSH to PULL over ipc", partial(Zmq, 2), module="zmq"),
        Peer("iceoryx2", "publish/subscribe without overflow", partial(PubSub, False), 1, "iceoryx2"),
        Peer("iceoryx2-overflow", "publish/subscribe with overflow", partial(PubSub, True), 1, "iceoryx2", True),
    )
    return {peer.name: peer for peer in found}
