"""Calls that block, on helper threads: each ends with an event for the vcore that called.

The result stays in this process, under the id that the event carries. While a call is under way its record in the segment
names the thread that made it; if that dies the watcher sends the event instead (host/sources).
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import queue
import signal
from collections.abc import Callable
from typing import Any

from ..errors import UpcallError
from ..flags import EventType
from ..front import port
from ..kern import const
from ..kern import source as table
from ..kern.event import get_vcpd_mbox_priv
from ..kern.layout import Seg
from ..kern.ucq import room_word, stop_wanting, want_room
from . import records
from .handle import Handle

THREADS_MAX = 32
LOOK_S = 0.05
"""A vcore that is to end, and waits for a call, looks so often whether it is to end at once: nothing wakes it for that."""
Done = tuple[int, int, str]
"""A call's id, the program's value, what was called."""
Work = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Done]


class Calls:
    """The calls of one vcore. `results` by id: the value, and the exception."""

    def __init__(self, handle: Handle, vcoreid: int) -> None:
        self.handle = handle
        self.vcoreid = vcoreid
        self.results: dict[int, tuple[Any, BaseException | None]] = {}
        self.work: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self.told: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.telling = False
        self.threads = 0
        self.under_way = 0
        self.after: Callable[[], object] = lambda: None
        """Called in a helper thread when the event of one that has ended is there."""

    def begin(self, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], value: int) -> int:
        """Has a helper thread call it. The call's id."""
        if not self.telling:
            self.telling = True  # first: an interrupt's handler may call, too
            try:
                # Its name is taken here: if none is left the caller hears of it, and nobody waits for what nobody will tell.
                seg = self.handle.segment.attach(self.handle.role)
            except BaseException:
                self.telling = False
                raise
            _start(functools.partial(self._tell_all, seg))
        name = getattr(function, "__qualname__", None) or repr(function)
        ident = records.make(
            self.handle.segment, self.handle.thread().seg, const.KIND_CALL, type=const.EV_SYSCALL, value=value,
            base=self.vcoreid, name=name, tell=False,
        )  # fmt: skip
        self._count()
        self.under_way += 1
        self.work.put((function, args, options, (ident, value, name)))
        if self.threads < min(THREADS_MAX, self.under_way):
            self.threads += 1
            _start(self._work)
        return ident

    def _count(self) -> bool:
        before = self.under_way
        with contextlib.suppress(queue.Empty):
            while True:
                self.told.get_nowait()
                self.under_way -= 1
        return self.under_way < before

    def running(self) -> bool:
        """Whether one is under way. The events of all others are there."""
        self._count()
        return self.under_way > 0

    def wait(self, enough: Callable[[], bool]) -> bool:
        """Waits until one more has ended, and its event is there. False if none is under way, or it is `enough`."""
        if self._count():
            return True
        while self.under_way and not enough():
            with contextlib.suppress(queue.Empty):
                self.told.get(timeout=LOOK_S)
                self.under_way -= 1
                return True
        return False

    def take(self, ident: int) -> tuple[Any, BaseException | None] | None:
        """The result of a call that has ended here; None for another worker's."""
        return self.results.pop(ident, None)

    def _work(self) -> None:
        """A helper thread."""
        while True:
            function, args, options, done = self.work.get()
            try:
                self.results[done[0]] = (function(*args, **options), None)
            except BaseException as error:
                self.results[done[0]] = (None, error)
            del function, args, options
            self.done.put(done)

    def _tell_all(self, seg: Seg) -> None:
        """The thread that sends the events, one for all helpers: each that sends has an attach slot."""
        self.handle.adopt(seg)
        with contextlib.suppress(UpcallError):  # the process ends
            while True:
                self._tell(*self.done.get())
                self.told.put(None)
                self.after()

    def _tell(self, ident: int, value: int, name: str) -> None:
        """Sends the event, and waits for room if there is none. Then the call is over: whoever dies in between is told of
        by a second event."""
        seg = self.handle.thread().seg
        table.begin_firing(seg, ident)
        at = room_word(seg, get_vcpd_mbox_priv(seg, self.vcoreid))
        while True:
            seen = want_room(seg, at)
            try:
                status = self.handle.vcore_sender().post_vcore(
                    EventType.SYSCALL, name.encode()[: const.INLINE_MAX], self.vcoreid, True, const.CALL_DONE,
                    os.getpid(), ident, value,
                )  # fmt: skip
                if status in (const.FULL, const.BUSY):
                    port.wait_word(seg, at, seen, 1_000_000_000)  # as a send that waits does
                    continue
            finally:
                stop_wanting(seg, at)
            break
        table.end_firing(seg, ident, 1, const.SOURCE_FREE)
        if status != const.OK:
            self.handle.fail(status, const.NO_VCORE)


def _start(run: Callable[[], None]) -> None:
    """A thread that no signal interrupts."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        _thread.start_new_thread(run, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
