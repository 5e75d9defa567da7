"""Processes of a measurement: started on the CPUs they belong on, ended whatever happens, and the way they report.

A process that is measured is forked by its supervisor, which the bench has forked, so it shares the bench's board and
pipes. Its workers inherit the affinity of who calls `start()`; nothing else places them.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import selectors
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import upcall

from ...host.segment import folder
from ..measure import DEADLINE_S, Board, Hung

NAME: Final = "upcall"
STOP_S: Final = 5.0
"""How long a process may take to stop before it is killed."""

_numbers = itertools.count()


def new_proc(*, spin_us: float | None = None, memory: str = "256 MiB", vcores: int = 1) -> upcall.Proc:
    """A definition under a name of its own, by default with one vcore."""
    return upcall.Proc(f"upcall-bench-{os.getpid()}-{next(_numbers)}", vcores=vcores, spin_us=spin_us, memory=memory)


def without_collector(proc: upcall.Proc) -> None:
    """No garbage collection in the workers: as in every role of a peer."""
    proc.main(gc.disable)


@contextmanager
def started(proc: upcall.Proc, cpu: int) -> Iterator[None]:
    """Runs a process, its supervisor included, on one CPU. However this ends, nothing of it is left."""
    allowed = os.sched_getaffinity(0)
    with _ctrl_c_later():
        os.sched_setaffinity(0, {cpu})
        try:
            proc.start()
        finally:
            os.sched_setaffinity(0, allowed)
    try:
        yield
    finally:
        with _ctrl_c_later():
            _end(proc)


def _end(proc: upcall.Proc) -> None:
    """Stops it; kills what does not stop. What waits in its segment then is nobody's."""
    supervisor: int = proc._running.pid
    try:
        proc.stop("drain", STOP_S)
    except TimeoutError:
        os.killpg(supervisor, signal.SIGKILL)  # it leads a group of its own, with its workers
        os.waitpid(supervisor, 0)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder() / proc.name)


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Ctrl-C comes through at the end: a start or a stop that it cut in two would leave processes behind."""
    came: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        came.append(signum)

    former = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
        if came:
            os.kill(os.getpid(), signal.SIGINT)


class Finish:
    """A pipe by which a worker says that the measurement is over. Make it before the fork."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def say(self) -> None:
        """In the worker."""
        os.write(self.writer, b"x")

    def wait(self, who: str, deadline_s: float = DEADLINE_S) -> None:
        """In the bench. Hung past the deadline."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.reader, selectors.EVENT_READ)
            if not selector.select(deadline_s):
                raise Hung(f"hung: {who} not done after {deadline_s:g} s")
        os.read(self.reader, 1)

    def close(self) -> None:
        """Both ends."""
        os.close(self.reader)
        os.close(self.writer)


def until(board: Board, is_so: Callable[[Any], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Looks at a board's words every now and then until they are as wanted. Hung past the deadline."""
    end = time.monotonic() + deadline_s
    while not is_so(board.words):
        if time.monotonic() > end:
            raise Hung(f"hung: {what} not done after {deadline_s:g} s")
        time.sleep(500e-6)
