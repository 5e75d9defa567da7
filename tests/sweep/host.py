"""A vcore and what its host does with it, step by step: what `host/worker.py` does in its loop, without the loop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from sweep.ledger import Ledger
from upcall.front.dispatch import Dispatcher
from upcall.kern import const, proc
from upcall.kern.layout import map_at, vcpd_at
from upcall.parlib import vcore as parlib
from upcall.parlib.recover import host_vcore

ROUNDS_MAX = 200


class Names:
    """Names for events, and reports of what cannot be: nothing here should be needed."""

    def type_name(self, number: int) -> str:
        return f"#{number}"

    def queue_name(self, number: int) -> str | None:
        return f"#{number}"

    def queue_handler(self, number: int) -> None:
        return None

    def failed(self, event: object, error: BaseException) -> None:
        raise error

    def unhandled(self, event: object) -> None:
        """A type that the scene has no handler for."""

    def corrupt(self, queue: int) -> None:
        raise AssertionError(f"a slot of queue {queue - 1} holds what no sender writes")

    def dead(self, event: Any, kept: bool) -> None:
        """Workers have died with an event, and its queue wants no more of it."""

    def no_room(self, event: Any) -> None:
        raise AssertionError(f"no room to make {event!r} a dead letter")

    def impostor(self, error: BaseException | None) -> None:
        raise AssertionError("a forked child comes out of a handler")


class Asleep(Exception):
    """A vcore without a core sleeps in the middle of its work."""


class Awake(Dispatcher):
    """A vcore whose host does not sleep here, but says that it would."""

    def sleep(self) -> int:
        raise Asleep


class Host:
    """The host of one vcore. `victim`: it runs in the process that dies. `during`: called inside each handler."""

    def __init__(self, segment: Any, seg: Any, vcoreid: int, ledger: Ledger, *, victim: bool = False) -> None:
        self.segment, self.seg, self.vcoreid, self.ledger, self.victim = segment, seg, vcoreid, ledger, victim
        self.during: Callable[[Any], None] = lambda ev: None
        self.parked = self.in_user_code = False
        kind = Dispatcher if victim else Awake
        self.vcore = kind(seg, vcoreid, Names(), Names())
        self.vcore.in_uthread_context = self._in_uthread_context
        self.kept: list[Any] = []

    def handle(self, type_number: int, batch_max: int = 0, queue: int | None = None) -> None:
        self.vcore.handle(queue, type_number, self._handle_batch if batch_max else self._handle, batch_max)

    def _handle(self, ev: Any) -> None:
        self.during(ev)
        self.ledger.handle(ev, self.victim)

    def _handle_batch(self, batch: Any) -> None:
        for ev in batch:
            self._handle(ev)

    def _in_uthread_context(self, function: Callable[..., Any], *args: Any) -> None:
        self.leave()
        try:
            function(*args)
        finally:
            self.disable()

    # ---- what it does ------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Hosts the vcore, in vcore context."""
        self.disable()
        assert host_vcore(self.seg, self.vcoreid), f"vcore {self.vcoreid} is hosted by somebody alive"
        parlib.vcore_entry(self.vcore)

    def disable(self) -> None:
        self.in_user_code = False
        parlib.disable_notifs(self.vcore)

    def work(self) -> None:
        """Until nothing is found, or its core is gone."""
        for _ in range(ROUNDS_MAX):
            try:
                found = parlib.work(self.vcore)
            except Asleep:
                self.parked = True
                return
            for queue in list(self.vcore.active):
                if queue in self.vcore.threads:
                    found += self.vcore.run_thread(queue)
            if not found:
                return
        raise AssertionError(f"vcore {self.vcoreid} finds work for ever")

    def idle(self) -> None:
        """Until it gives its core back."""
        for _ in range(ROUNDS_MAX):
            self.work()
            if self.parked or parlib.vcore_yield(self.vcore):
                self.parked = True
                return
        raise AssertionError(f"vcore {self.vcoreid} never yields")

    def leave(self) -> None:
        """Into user code."""
        for _ in range(ROUNDS_MAX):
            self.work()
            if self.parked:
                return
            if parlib.leave_vcore_context(self.vcore):
                self.in_user_code = True
                return
        raise AssertionError(f"vcore {self.vcoreid} never comes to its user code")

    def finish(self) -> None:
        """Leaves in good order, as `VCoreHost.finish`."""
        parlib.vcore_leave(self.vcore)
        proc.unhost_vcore(self.seg, self.vcoreid)
        self.parked = True

    # ---- what it would do by itself ----------------------------------------------------------------------------------

    @property
    def state(self) -> int:
        return int(self.segment.u64(map_at(self.seg, self.vcoreid))) & 15

    def step(self, fifo: int) -> bool:
        """What its host does next without being told: nothing while it sleeps, unless the wake has been issued; nothing
        in user code, unless it is interrupted. False if nothing."""
        if self.parked:
            # STARTING is not enough: the wake may never have been issued, and then a host sleeps on.
            if self.state != const.VC_STARTED or not parlib.vcore_entry(self.vcore):
                return False
            self.parked = False
        elif self.in_user_code:
            byte = b""
            with contextlib.suppress(BlockingIOError):
                byte = os.read(fifo, 4096)
            if not byte:
                return False
            self.disable()
            self.leave()
            return True
        self.idle()
        return True

    @property
    def pending(self) -> bool:
        """`notif_pending` of its vcore."""
        return bool(self.segment.u32(vcpd_at(self.seg, self.vcoreid) + const.VCPD_NOTIF_PENDING))
