"""SIGINT and SIGTERM: noted from before a segment is made until it is gone, and never slept over.

Python calls a signal's handler between two bytecodes. So a handler that raises, as the usual one of SIGINT does, may leave
anything half done; here it only notes the number, for a loop that looks when it has time. And a signal that comes just
before a system call that waits would be slept over: so Python also writes a byte into a pipe, at once, and the loop waits
in a `select` on it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from . import forks

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Holds both back until the end of the body. What it forks or starts goes on holding them, until it lets them in."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    late: list[int] = []
    former: list[tuple[int, Any]] = []
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        if threading.current_thread() is threading.main_thread():
            # Another thread may take the signal, and then it is this one that Python's handler runs in.
            for number in STOPS:
                if callable(signal.getsignal(number)):
                    former.append((number, signal.signal(number, lambda number, frame: late.append(number))))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _restore(former)
        for came in late:
            signal.raise_signal(came)


def _restore(handlers: list[tuple[int, Any]]) -> None:
    """Puts all back, whatever one that is back already does."""
    if handlers:
        number, handler = handlers.pop()
        try:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        finally:
            _restore(handlers)


def let_in() -> None:
    """Takes what `held` has kept back, and what comes from now on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


class StopSignals:
    """Notes both while it is entered, in the main thread. `fd` is readable when there is something to `take`."""

    def __init__(self) -> None:
        self.fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._came: list[int] = []
        self._former: list[tuple[int, Any]] = []
        self._former_fd = -1

    def __enter__(self) -> StopSignals:
        _entered.append(self)
        for number in STOPS:
            self._former.append((number, forks.on_signal(number, self._note)))
        self._former_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._former_fd)
        try:
            _restore(self._former)
        finally:
            _entered.remove(self)
            self.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append(number)
        self.wake()

    def wake(self) -> None:
        """Makes `fd` readable."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def take(self) -> list[int]:
        """The numbers that have come since the last call, in order."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, 4096):
                pass
        # Runs the handlers of whatever has written: Python 3.13.0, in a child that a thread has forked, does not between two
        # bytecodes.
        signal.pthread_sigmask(signal.SIG_BLOCK, ())
        came, self._came = self._came, []
        return came

    def close(self) -> None:
        """Closes the pipe."""
        os.close(self.fd)
        os.close(self._writer)


_entered: list[StopSignals] = []


def _in_child() -> None:
    """A forked child's signals are its own; the pipe is its parent's."""
    while _entered:
        signal.set_wakeup_fd(-1)
        _entered.pop().close()


os.register_at_fork(after_in_child=_in_child)
