"""Vcores that die or stop: entering, working, yielding, waking, leaving, with every kind of mail."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sweep.scene import Scene, Strike
from sweep.senders import LARGE, SMALL
from sweep.victim import Fate, Victim
from sweep.world import OTHERS, TYPE, World
from upcall import EventFlag as F
from upcall.flags import WORK_QUEUE, EventType
from upcall.host.worker import VCoreHost, WorkerHandle
from upcall.kern import const
from upcall.kern.layout import mbox_at
from upcall.parlib.recover import preempt_vcore

Stage = Callable[[World], None]


# ---- the others ------------------------------------------------------------------------------------------------------


def alone(w: World) -> None:
    """Nobody else hosts a vcore yet."""


def one_asleep(w: World) -> None:
    """The second vcore sleeps."""
    w.asleep(1)


def waiting(w: World) -> None:
    """Nobody hosts a vcore, and events of each size wait."""
    for size in (16, SMALL, LARGE):
        w.setup(size)


class VcoreScene(Scene):
    """The first vcore's host is the victim."""

    stage: Stage = staticmethod(one_asleep)

    def play(self, w: World, strike: Strike) -> Fate:
        self.stage(w)
        fate = strike()
        self.after(w, fate)
        return fate

    def after(self, w: World, fate: Fate) -> None:
        """A sender goes on at once. A supervisor buries the dead, and takes over for who is stopped; then all that is not
        the victim's own is handled, with the one other vcore."""
        w.another()
        if 1 not in w.hosts and self.vcores > 1:
            w.host(1)
        w.settle()
        if fate.stopped:
            self._take_over(w)
            fate.go_on()
        w.bury(0, fate.pid)
        w.settle()
        self.check_others(w)
        w.check_end(deaths=int(fate.killed))

    def _take_over(self, w: World) -> None:
        """What the watcher does once the victim has not moved for a while."""
        preempt_vcore(w.sup, 0)
        w.settle()
        self.check_others(w, but=w.in_hands())

    def check_others(self, w: World, but: tuple[int, ...] = ()) -> None:
        """What any vcore may handle has been handled."""
        if not self.flags & F.VCORE_PRIVATE and self.vcores > 1:
            w.check_handled(but=but, bit=not w.bit_in_hand(0))


class MailScene(VcoreScene):
    """Mail to the victim's vcore, without a queue."""

    private = False

    def send(self, sender: Any, mailer: Any, ledger: Any, number: int, size: int) -> None:
        self.post(mailer, ledger, number, size, self.private)

    def check_others(self, w: World, but: tuple[int, ...] = ()) -> None:
        if not self.private:
            super().check_others(w, but)


class LimitScene(VcoreScene):
    """A mailbox with a limit, and somebody who waits for room in it."""

    def define(self, program: Any) -> None:
        self.queue = {"limit": 30}
        super().define(program)

    def stage(self, w: World) -> None:  # type: ignore[override]
        w.asleep(1)
        w.set(mbox_at(w.at, w.event.queue_mbox(w.at, 0)) + const.MB_ROOM_WAITERS, 1, 4)
        w.set(w.at.procinfo + const.PI_POOL_WAITERS, 1, 4)
        w.set(w.at.procinfo + const.PI_DRAINERS, 1, 4)


class NewsScene(VcoreScene):
    """The victim is told that the second vcore's host is dead, and settles what that had in hand."""

    def stage(self, w: World) -> None:  # type: ignore[override]
        ghost = w.ghost(1)
        w.setup(16)
        w.setup(SMALL)
        ghost.take()
        ghost.die()

    def after(self, w: World, fate: Fate) -> None:
        w.bury(1)
        super().after(w, fate)


class WakeScene(VcoreScene):
    """The victim really sleeps, and is really woken."""

    def meanwhile(self, w: World, pid: int) -> int | None:
        status = w.wait_for(pid, lambda: w.map(0) == const.VC_OFFLINE)
        if status is None:
            w.another()
        return status


class WorkerScene(VcoreScene):
    """The victim is the host layer's own: `VCoreHost`, with an interrupt into its user code."""

    flags = F.IPI
    queue = {"mailbox": "vcore"}  # noqa: RUF012
    interrupted = True

    def define(self, program: Any) -> None:
        program.queue("queue", flags=self.flags, **self.queue)
        program.on(TYPE)(lambda ev: self.ledger.handle(ev, True))
        self.definition = program.definition

    def meanwhile(self, w: World, pid: int) -> int | None:
        """Interrupts it once it is in user code."""
        if not self.interrupted:
            return None
        status = w.wait_for(pid, lambda: w.map(0) == const.VC_ONLINE and not w.vcpd(0, const.VCPD_NOTIF_DISABLED))
        if status is None:
            w.another()
        return status


class StopScene(WorkerScene):
    """A worker that is told to stop: it drains, and leaves."""

    flags = WORK_QUEUE
    queue = {}  # noqa: RUF012
    interrupted = False

    def stage(self, w: World) -> None:  # type: ignore[override]
        waiting(w)
        w.segment.put_u32(w.at.procinfo + const.PI_STOP, const.STOP_DRAIN)


# ---- what the victim does --------------------------------------------------------------------------------------------


def entering(v: Victim) -> None:
    """Hosts its vcore, handles what waits, and yields."""
    host = v.host()
    v.arm()
    host.enter()
    host.idle()


def handling(*sizes: int, keep: bool = False) -> Callable[[Victim], None]:
    """Handles events that come while it looks at the queue by itself, and yields. `keep`: payloads outlive handlers."""

    def act(v: Victim) -> None:
        host = v.host()
        if keep:
            host.during = lambda ev: host.kept.append(ev.payload)
        host.enter()
        host.work()
        v.send(*sizes)
        v.arm()
        host.idle()
        host.kept.clear()

    return act


def sending_handler(v: Victim) -> None:
    """Its handler sends another event, and ends."""
    host = v.host()
    host.enter()
    host.work()
    v.send(16)
    sent: list[int] = []
    host.during = lambda ev: None if sent else sent.append(v.send(16) or 1)
    v.arm()
    host.idle()


def many(v: Victim) -> None:
    """A backlog of short handlers, until the 64th in a row asks for one more core."""
    host = v.host()
    host.enter()
    host.work()
    v.send(*[16] * 55)
    host.work()
    v.send(*[16] * 7)
    v.arm()
    host.idle()


def yielding(v: Victim) -> None:
    host = v.host()
    host.enter()
    host.work()
    v.send(16)
    host.work()
    v.arm()
    host.idle()


def sleeping(v: Victim) -> None:
    """Gives its core back, sleeps, and is woken."""
    host = v.host()
    host.enter()
    host.work()
    v.arm()
    host.vcore.idle()
    host.idle()


def into_user_code(v: Victim) -> None:
    """Leaves vcore context, is told of an event, and comes back."""
    host = v.host()
    host.enter()
    host.work()
    v.send(16)
    v.arm()
    host.leave()
    host.disable()
    host.idle()


def leaving(v: Victim) -> None:
    """Leaves in good order, with an event waiting."""
    host = v.host()
    host.enter()
    host.work()
    v.send(16)
    v.arm()
    host.finish()


def told_of_another(v: Victim) -> None:
    host = v.host()
    host.enter()
    host.work()
    v.handle.vcore_sender().post_vcore(EventType.VCORE_PREEMPT, b"", 0, False, 0, 0, 1, 0)
    v.arm()
    host.idle()


def worker(v: Victim) -> None:
    """A worker from its start to its end, interrupted in user code."""
    host = VCoreHost(v.scene.definition, WorkerHandle(v.segment), 0, signals=True)
    ledger = v.ledger

    def user_code() -> None:
        while not ledger.by_victim(OTHERS) and not ledger.handled(OTHERS):
            time.sleep(0.0002)

    v.arm()
    host.start()
    host.in_uthread_context(user_code)
    host.finish()


def stopping_worker(v: Victim) -> None:
    host = VCoreHost(v.scene.definition, WorkerHandle(v.segment), 0, signals=True)
    v.arm()
    host.start()
    host.loop()
    host.finish()


BIT = WORK_QUEUE | F.NOMSG
SPAM = F.SPAM_PUBLIC | F.IPI
SCENES: list[Scene] = [
    VcoreScene("vcore/enter", entering),
    VcoreScene("vcore/enter/waiting", entering, stage=waiting),
    VcoreScene("vcore/enter/one-vcore", entering, stage=waiting, vcores=1),
    VcoreScene("vcore/message", handling(16)),
    VcoreScene("vcore/messages", handling(16, 16, 16)),
    VcoreScene("vcore/small", handling(SMALL)),
    VcoreScene("vcore/large", handling(LARGE)),
    VcoreScene("vcore/kept", handling(SMALL, LARGE, keep=True)),
    VcoreScene("vcore/page-turn", handling(*[16] * 9)),
    VcoreScene("vcore/batch", handling(16, SMALL, 16), batch_max=2),
    VcoreScene("vcore/bit", handling(0), flags=BIT),
    VcoreScene("vcore/thread", handling(16, 16), flags=WORK_QUEUE | F.THREAD),
    VcoreScene("vcore/public", handling(16, SMALL), flags=F.IPI, queue={"mailbox": "vcore"}),
    VcoreScene("vcore/private", handling(16, SMALL), flags=F.IPI | F.VCORE_PRIVATE),
    VcoreScene("vcore/spam", handling(16), flags=SPAM, may_repeat=True),
    VcoreScene("vcore/spam-bit", handling(0), flags=SPAM | F.NOMSG, may_repeat=True),
    MailScene("vcore/mail/public", handling(16)),
    MailScene("vcore/mail/private", handling(16), private=True),
    LimitScene("vcore/limit", handling(16, SMALL)),
    VcoreScene("vcore/handler-sends", sending_handler),
    VcoreScene("vcore/many", many, pages=40),
    VcoreScene("vcore/yield", yielding),
    VcoreScene("vcore/yield/alone", yielding, vcores=1, stage=alone),
    WakeScene("vcore/sleep-and-wake", sleeping),
    VcoreScene("vcore/user-code", into_user_code),
    VcoreScene("vcore/leave", leaving),
    NewsScene("vcore/told-of-a-death", told_of_another),
    WorkerScene("vcore/worker", worker),
    StopScene("vcore/worker/stop", stopping_worker),
]
