"""Signals that a program wants as events, in a worker process.

They are blocked in all its threads, from its first instruction on (the supervisor blocks them before it forks), so nobody's
code is interrupted by them; a helper thread reads them from a signalfd and sends. No sending is done in a signal handler's
context, and a full queue is waited for. The supervisor reads its own in its loop (host/sources). A forked child of a worker
has them unblocked again.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import queue
import select
import signal
import traceback
from collections.abc import Iterable, Iterator

from ..errors import UpcallError
from ..flags import EventType
from ..kern import const
from ..kern import source as table
from . import forks, linux, records
from .handle import Handle

log = logging.getLogger("upcall")
END_S = 1.0
OURS = (signal.SIGINT, signal.SIGTERM)
"""Caught, not blocked, also if they are wanted: they have another meaning too."""


def block(numbers: Iterable[int]) -> set[signal.Signals | int]:
    """Blocks the signals that are wanted; the former mask."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, set(numbers) - set(OURS)))


@contextlib.contextmanager
def blocked(numbers: Iterable[int]) -> Iterator[None]:
    """Blocks the signals that are wanted, and for threads that are started meanwhile; not in forked children."""
    before = block(numbers)
    forks.unblock_in_child(set(numbers) - set(OURS) - before)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SignalThread:
    """A worker's signals."""

    def __init__(self, handle: Handle, numbers: Iterable[int]) -> None:
        self.handle = handle
        numbers = set(numbers) - set(OURS)
        block(numbers)
        forks.unblock_in_child(numbers)
        self.fd = linux.open_signals(numbers)
        self.caught: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.ending = False
        self.over = _thread.allocate_lock()
        self.over.acquire()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            _thread.start_new_thread(self._run, ())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def note(self, number: int) -> None:
        """One that a Python handler has caught."""
        self.caught.put(number)
        os.eventfd_write(self.wake, 1)

    def _run(self) -> None:
        try:
            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            poll.register(self.wake, select.POLLIN)
            while not self.ending:
                poll.poll()
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self.wake)
                self.send()
        except BaseException:
            log.error("%s: signals are not sent any more\n%s", self.handle.name, traceback.format_exc().rstrip())
        finally:
            # Before the worker ends: a thread that its end meets in the middle of this would keep the lock of the slots.
            self.handle.give_back_name()
            self.over.release()

    def end(self) -> None:
        """The worker leaves: what has come to it is sent. If nobody makes room meanwhile it is lost with this process."""
        self.ending = True
        os.eventfd_write(self.wake, 1)
        self.over.acquire(timeout=END_S)

    def send(self) -> None:
        """Sends what has come."""
        numbers = linux.take_signals(self.fd)
        while not self.caught.empty():
            numbers.append(self.caught.get())
        segment = self.handle.segment
        for number in numbers:
            queue_number = segment.u32(segment.seg.procinfo + const.PI_KERNEL_EVTS + 4 * const.EV_POSIX_SIGNAL)
            try:
                if queue_number:
                    self.handle.sender(queue_number - 1).send(EventType.POSIX_SIGNAL, arg1=number)
            except UpcallError as error:
                log.error("%s: signal %d is lost: %s", self.handle.name, number, error)
                continue
            for source in records.all_of(segment):
                if source.kind == const.KIND_SIGNAL and source.value == number:
                    table.add_count(self.handle.thread().seg, source.id, 1)
