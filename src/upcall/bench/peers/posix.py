"""What the kernel gives to any program: a pipe, an eventfd, a semaphore."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import termios
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ..sample import BATCH, MESSAGE, PAYLOAD, System
from .events import events
from .executors import pipe_trip
from .job import Peer
from .link import Handler, ReceiveEnd, SendEnd
from .loops import loop_trip
from .roundtrips import round_trip
from .sends import BitEnd, bit_cost, send_cost
from .wakes import wake

PIPE_BYTES: Final = 1 << 20
"""What an unprivileged process may ask for (`/proc/sys/fs/pipe-max-size`); the default is 64 KiB."""

_PAGE: Final = 4096
_READ: Final = 1 << 16


def widen(fd: int) -> int:
    """Asks for a pipe of PIPE_BYTES; returns what it holds now (the system's limit for one user may be reached)."""
    try:
        return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def fitting(pipe_bytes: int, size: int) -> int:
    """How many writes of `size` bytes a pipe takes: one is never split over two pages if it fits a page."""
    return (pipe_bytes // _PAGE - 1) * (_PAGE // size)


class PipeLink:
    """A raw pipe with records of one size: a write is a message, a read takes as many as there are."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._read_fd, self._write_fd = os.pipe()
        self.room = fitting(widen(self._write_fd), size)

    def sender(self) -> SendEnd:
        write = partial(os.write, self._write_fd)
        return SendEnd(write, lambda messages: self._write_all(b"".join(messages)))

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._write_fd, view) :]

    def receiver(self) -> ReceiveEnd:
        take = partial(os.read, self._read_fd, self._size)
        return ReceiveEnd(take, self._poll(), self._run, self._run_many)

    def _poll(self) -> Callable[[], bytes | None]:
        # Asking for the number of bytes is cheaper than the exception of a non-blocking read that finds none.
        waiting = bytearray(4)
        fd, size, ioctl, read, wanted = self._read_fd, self._size, fcntl.ioctl, os.read, termios.FIONREAD

        def poll() -> bytes | None:
            ioctl(fd, wanted, waiting)
            return read(fd, size) if any(waiting) else None

        return poll

    def _run(self, handler: Handler, count: int) -> None:
        fd, size, read = self._read_fd, self._size, os.read
        rest = b""
        while count > 0:
            data = rest + read(fd, _READ)
            whole = len(data) // size * size
            for at in range(0, whole, size):
                handler(data[at : at + size])
            count -= whole // size
            rest = data[whole:]

    def _run_many(self, handler: Handler, count: int) -> None:
        fd, size, read = self._read_fd, self._size, os.read
        rest = b""
        while count > 0:
            data = rest + read(fd, _READ)
            whole = len(data) // size * size
            handler([data[at : at + size] for at in range(0, whole, size)])
            count -= whole // size
            rest = data[whole:]

    def destroy(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)


class EventfdLink:
    """An eventfd as a channel that says only that something happened."""

    room = 1 << 30

    def __init__(self, _size: int) -> None:
        self._fd = os.eventfd(0)

    def sender(self) -> SendEnd:
        fd, write = self._fd, os.eventfd_write
        return SendEnd(lambda _message: write(fd, 1))

    def receiver(self) -> ReceiveEnd:
        return ReceiveEnd(partial(os.eventfd_read, self._fd))

    def destroy(self) -> None:
        os.close(self._fd)


class EventfdBit:
    """An eventfd whose counter nobody reads: it is readable, and stays so."""

    def __init__(self) -> None:
        self._fd = os.eventfd(1)

    def setter(self) -> BitEnd:
        return BitEnd(partial(os.eventfd_write, self._fd, 1))

    def receiver(self) -> BitEnd:
        return BitEnd()

    def destroy(self) -> None:
        os.close(self._fd)


class SemaphoreLink:
    """A POSIX semaphore, by the stdlib's only door to one; its file is unlinked as it is made."""

    room = 1 << 30

    def __init__(self, _size: int) -> None:
        self._semaphore = multiprocessing.get_context("fork").Semaphore(0)

    def sender(self) -> SendEnd:
        post = self._semaphore.release
        return SendEnd(lambda _message: post())

    def receiver(self) -> ReceiveEnd:
        return ReceiveEnd(self._semaphore.acquire, self._poll)

    def _poll(self) -> Any | None:
        return self._semaphore.acquire(False) or None

    def destroy(self) -> None:
        pass


class SemaphoreBit:
    """A POSIX semaphore above zero, posted again."""

    def __init__(self) -> None:
        self._semaphore = multiprocessing.get_context("fork").Semaphore(1)

    def setter(self) -> BitEnd:
        return BitEnd(self._semaphore.release)

    def receiver(self) -> BitEnd:
        return BitEnd()

    def destroy(self) -> None:
        pass


def systems() -> list[System]:
    """A raw pipe, an eventfd, a POSIX semaphore."""
    return [_pipe(), _pipe_apart(), _eventfd(), _semaphore()]


def _pipe() -> Peer:
    name = "pipe"
    wide = "a pipe of 1 MiB"
    greedy = "a read takes all there is"
    return Peer(
        name,
        {
            "send-message": send_cost("send-message", name, PipeLink, MESSAGE, wide),
            "send-payload": send_cost("send-payload", name, PipeLink, PAYLOAD, wide),
            "events-1-1": events("events-1-1", name, PipeLink, f"{wide}; {greedy}"),
            "events-2-1": events("events-2-1", name, PipeLink, f"{wide}; {greedy}", senders=2),
            "events-many-1-1": events(
                "events-many-1-1",
                name,
                PipeLink,
                f"{wide}; records joined and cut by hand",
                batch=BATCH,
                full=2_000_000,
            ),
            "roundtrip-polling": round_trip("roundtrip-polling", name, PipeLink, "FIONREAD, then read", polling=True),
            "roundtrip-parked": round_trip("roundtrip-parked", name, PipeLink),
            "loop-awake": loop_trip("loop-awake", name, awake=True),
            "loop-parked": loop_trip("loop-parked", name, awake=False),
            "task-parked": pipe_trip(name, apart=False),
            "wake-parked": wake(name, PipeLink),
        },
    )


def _pipe_apart() -> Peer:
    name = "pipe apart"
    return Peer(name, {"task-parked": pipe_trip(name, apart=True)})


def _eventfd() -> Peer:
    name = "eventfd"
    return Peer(
        name,
        {
            "send-bit": bit_cost(name, EventfdBit),
            "roundtrip-parked": round_trip("roundtrip-parked", name, EventfdLink, "carries no message"),
            "wake-parked": wake(name, EventfdLink, "carries no message"),
        },
    )


def _semaphore() -> Peer:
    name = "semaphore"
    return Peer(
        name,
        {
            "send-bit": bit_cost(name, SemaphoreBit, "multiprocessing.Semaphore"),
            "roundtrip-polling": round_trip(
                "roundtrip-polling", name, SemaphoreLink, "carries no message", polling=True
            ),
            "roundtrip-parked": round_trip("roundtrip-parked", name, SemaphoreLink, "carries no message"),
        },
    )
