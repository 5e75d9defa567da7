"""A single-core process whose vcore is hosted by whoever asks for its events, in its own thread and in no loop of ours.

`take` is the vcore's turn: it looks, and takes one message. When it finds none the vcore yields, and sleeps in a poll that
is the program's (`parlib/poll`): `fileno()` is the read end of its FIFO. As long as the vcore is ONLINE there is a byte in
it, so that the file is readable whenever something may wait.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection

from ..errors import SegmentError
from ..front.dispatch import KEEP
from ..front.event import Event
from ..front.hand import Hand
from ..kern import const
from ..parlib import vcore as parlib
from ..parlib.poll import come_back, sleep_in_poll
from . import tables
from .definition import Program
from .owner import finish, open_for_owner
from .stops import held
from .threads import end_workers
from .worker import VCoreHost, WorkerHandle

LOOKS = 3
"""So often `take` looks before it leaves news to the program's next round: it may be of a queue that is not asked for."""


def keep(event: object) -> object:
    """The handler of every event: whoever has taken it says when it is done."""
    return KEEP


class Receiver(VCoreHost):
    """One vcore's host. `hands`: what was taken and is not done, by event."""

    def __init__(self, proc: Program) -> None:
        with held():
            self.owned = open_for_owner(proc)
            self.owner = self.owned.attach(const.ROLE_SUPERVISOR)
            end_workers(proc, self.owned, self.owner)
            handle = WorkerHandle(self.owned)
            proc._lend_handle(handle)
            super().__init__(proc.definition, handle, 0, signals=False)
            self.has_fifo = True
            self.proc = proc
            self.thread = threading.get_ident()
            self.hands: dict[int, Hand] = {}
            self.got: Hand | None = None
            self.parked = False
            self.dispatcher.start_task = self._keep
            self.dispatcher.max_tasks = 1 << 32
            self.dispatcher.blocked_ns = 1 << 62  # the loop is the program's
            if not self.start():
                raise SegmentError(f"the vcore of {proc.name!r} is hosted by another living process")
            self._ring()

    def _be_told(self) -> None:
        sleep_in_poll(self.dispatcher)

    def fileno(self) -> int:
        """Readable whenever something may wait."""
        self.check()
        return self.fifo

    def check(self) -> None:
        """ForkedHandle in a forked child, SegmentError after `close`, RuntimeError in another thread."""
        self.handle.check_open()
        if threading.get_ident() != self.thread:
            raise RuntimeError(
                f"process {self.proc.name!r} receives in the thread that has started it, not in this one"
            )

    def open_queue(self, name: str) -> int:
        """The number of a queue whose events are taken one by one; made if it is not there."""
        self.check()
        if name not in tables.queues(self.segment).values():
            tables.register_queue(
                self.segment, self.seg, name, flags=const.EVENT_IPI | const.EVENT_INDIR | const.EVENT_FALLBACK, vcore=0,
                mailbox=-1, limit=0, on_full=const.ON_FULL_BLOCK, on_death=const.ON_DEATH_REDELIVER,
                max_redeliveries=const.REDELIVERIES_USUAL,
            )  # fmt: skip
        number = self.handle.queue_number(name)
        self.handle.queue_handlers[number] = keep
        self.dispatcher.threads.add(number)
        return number

    def take(self, queue: int, wanted: Collection[int]) -> Event | None:
        """One event of a queue; None: there is none, and `fileno()` is not readable until something may wait in one of the
        queues `wanted`."""
        self.check()
        dispatcher = self.dispatcher
        for _ in range(LOOKS):
            if self.parked:
                if not come_back(dispatcher):
                    return None
                self.parked = False
                self._ring()
            parlib.work(dispatcher)
            self.got = None
            dispatcher.run_thread(queue)
            if self.got is not None:
                return self._taken(self.got)
            self._empty_fifo()
            # Like a vcore that is full, for the queues that nobody waits for: they keep it from no sleep.
            dispatcher.tasks.clear()
            dispatcher.tasks.update(dispatcher.threads.difference(wanted))
            dispatcher.full = True
            self.parked = parlib.vcore_yield(dispatcher)
            dispatcher.full = False
            if self.parked:
                return None
            self._ring()
        return None  # with the file readable: another queue has something, or it came just now

    def _taken(self, hand: Hand) -> Event:
        event: Event = hand.event
        self.hands[id(event)] = hand
        return event

    def _keep(self, hand: Hand, awaitable: object) -> None:
        self.got = hand

    def in_uthread_context(self, function: object, *args: object) -> object:
        """A message is taken in vcore context."""
        return function(*args)  # type: ignore[operator]

    def _ring(self) -> None:
        os.write(self.fifo_writer, b"\0")

    def done(self, event: Event) -> None:
        """The event has been handled. RuntimeError if it has been before."""
        self.check()
        hand = self.hands.pop(id(event), None)
        if hand is None:
            raise RuntimeError(f"{event!r} is done already")
        self.dispatcher.done_with(hand, False)

    def close(self) -> bool:
        """Stops: what is in hand waits again. The segment is removed if nothing waits in it; False if it is not."""
        self.check()
        for hand in self.hands.values():
            self.dispatcher.done_with(hand, True)
        self.hands.clear()
        self.finish()
        empty = finish(self.segment, self.owner)
        self.proc._close_handle()
        return empty
