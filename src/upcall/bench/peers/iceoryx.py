"""iceoryx2: publish/subscribe and events over shared memory, each role with a node of its own."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from ..sample import BATCH, MESSAGE, PAYLOAD, System
from .events import events
from .job import Peer
from .link import Handler, ReceiveEnd, SendEnd, missing
from .roundtrips import round_trip
from .sends import BitEnd, bit_cost, send_cost

_SHM: Final = Path("/dev/shm")
_numbers = itertools.count()


class _World:
    """A name of our own for all that iceoryx2 keeps on disk, so that all of it can be found and removed."""

    def __init__(self) -> None:
        self._prefix = f"upcall-bench-{os.getpid()}-{next(_numbers)}-"
        self._root = tempfile.mkdtemp(prefix="upcall-bench-")

    def builder(self, service: str) -> Any:
        """A node in this process, and its builder for a service of this name."""
        iox = import_module("iceoryx2")
        iox.set_log_level(iox.LogLevel.Fatal)
        config = iox.config.global_config()
        config.global_cfg.prefix = iox.FileName.new(self._prefix)
        config.global_cfg.root_path = iox.Path.new(self._root)
        node = (
            iox.NodeBuilder.new()
            .config(config)
            .signal_handling_mode(iox.SignalHandlingMode.Disabled)
            .create(iox.ServiceType.Ipc)
        )
        return node.service_builder(iox.ServiceName.new(service))

    def remove(self) -> None:
        """Removes what is left: even a clean end leaves a file, a killed role many."""
        shutil.rmtree(self._root, ignore_errors=True)
        for path in _SHM.glob(f"{self._prefix}*"):
            with suppress(FileNotFoundError):
                path.unlink()


class PubSubLink:
    """A subscriber that polls: publish/subscribe itself has nothing to wait on.

    `per_sample` messages fit one sample; a batch is copied into one.
    """

    def __init__(self, size: int, *, per_sample: int = 1, room: int = 1024) -> None:
        self.room = room
        self._size = size
        self._sample_bytes = size * per_sample
        self._world = _World()

    def _service(self) -> Any:
        payload = ctypes.c_uint8 * self._sample_bytes
        builder = self._world.builder("messages").publish_subscribe(payload)
        return builder.enable_safe_overflow(False).subscriber_max_buffer_size(self.room).open_or_create()

    def _publish(self) -> tuple[Any, Callable[[bytes], None]]:
        iox = import_module("iceoryx2")
        strategy = iox.BackpressureStrategy.RetryUntilDelivered
        publisher = self._service().publisher_builder().backpressure_strategy(strategy).create()
        loan, copy = publisher.loan_uninit, ctypes.memmove

        def send(message: bytes) -> None:
            sample = loan()
            copy(sample.payload_ptr, message, len(message))
            sample.assume_init().send()

        return publisher, send

    def sender(self) -> SendEnd:
        publisher, send = self._publish()
        return SendEnd(send, lambda messages: send(b"".join(messages)), publisher.delete)

    def receiver(self) -> ReceiveEnd:
        subscriber = self._service().subscriber_builder().create()
        receive = subscriber.receive

        def take() -> Any:
            while (sample := receive()) is None:
                pass
            return sample

        return ReceiveEnd(take, receive, None, partial(self._run_many, take), subscriber.delete)

    def _run_many(self, take: Callable[[], Any], handler: Handler, count: int) -> None:
        size, whole, read = self._size, self._sample_bytes, ctypes.string_at
        while count > 0:
            data = read(take().payload_ptr, whole)
            handler([data[at : at + size] for at in range(0, whole, size)])
            count -= whole // size

    def destroy(self) -> None:
        self._world.remove()


class WakingLink(PubSubLink):
    """Publish/subscribe with an event beside it, on which the subscriber sleeps."""

    def sender(self) -> SendEnd:
        publisher, publish = self._publish()
        notifier = self._world.builder("wake").event().open_or_create().notifier_builder().create()
        notify = notifier.notify

        def send(message: bytes) -> None:
            publish(message)
            notify()

        return SendEnd(send, None, partial(_delete, publisher, notifier))

    def receiver(self) -> ReceiveEnd:
        subscriber = self._service().subscriber_builder().create()
        listener = self._world.builder("wake").event().open_or_create().listener_builder().create()
        receive, wait = subscriber.receive, listener.blocking_wait

        def take() -> Any:
            while (sample := receive()) is None:
                wait()
            return sample

        return ReceiveEnd(take, close=partial(_delete, subscriber, listener))


class EventLink:
    """An iceoryx2 event alone: it says that something happened."""

    room = 1 << 30

    def __init__(self, _size: int) -> None:
        self._bit = EventBit()

    def sender(self) -> SendEnd:
        end = self._bit.setter()
        notify = end.set
        return SendEnd(lambda _message: notify(), None, end.close)

    def receiver(self) -> ReceiveEnd:
        listener = self._bit.listener()
        return ReceiveEnd(listener.blocking_wait, lambda: listener.try_wait() or None, close=listener.delete)

    def destroy(self) -> None:
        self._bit.destroy()


class EventBit:
    """An iceoryx2 event, notified again and again while its listener does not look."""

    def __init__(self) -> None:
        self._world = _World()

    def _service(self) -> Any:
        return self._world.builder("event").event().open_or_create()

    def listener(self) -> Any:
        """The waiting side."""
        return self._service().listener_builder().create()

    def setter(self) -> BitEnd:
        notifier = self._service().notifier_builder().create()
        return BitEnd(notifier.notify, notifier.delete)

    def receiver(self) -> BitEnd:
        return BitEnd(close=self.listener().delete)

    def destroy(self) -> None:
        self._world.remove()


def _delete(*ports: Any) -> None:
    for port in ports:
        port.delete()


def systems() -> list[System]:
    """iceoryx2's publish/subscribe, and its event alone."""
    check = partial(missing, "iceoryx2")
    name, event = "iceoryx2", "iceoryx2 event"
    batch = partial(PubSubLink, per_sample=BATCH, room=64)
    polls = "loan, copy, send; receiver polls"
    bare = "carries no message"
    return [
        Peer(
            name,
            {
                "send-message": send_cost("send-message", name, PubSubLink, MESSAGE, "loan, copy, send"),
                "send-payload": send_cost("send-payload", name, PubSubLink, PAYLOAD, "loan, copy, send"),
                "events-1-1": events("events-1-1", name, PubSubLink, polls, full=100_000),
                "events-2-1": events("events-2-1", name, PubSubLink, polls, senders=2, full=100_000),
                "events-many-1-1": events(
                    "events-many-1-1", name, batch, f"{polls}; 1024 in one sample by hand", batch=BATCH, full=2_000_000
                ),
                "roundtrip-polling": round_trip("roundtrip-polling", name, PubSubLink, polls, polling=True),
                "roundtrip-parked": round_trip("roundtrip-parked", name, WakingLink, "with an event to sleep on"),
            },
            check,
        ),
        Peer(
            event,
            {
                "send-bit": bit_cost(event, EventBit),
                "roundtrip-polling": round_trip("roundtrip-polling", event, EventLink, bare, polling=True),
                "roundtrip-parked": round_trip("roundtrip-parked", event, EventLink, bare),
            },
            check,
        ),
    ]
