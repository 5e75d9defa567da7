"""Senders that die or stop: in each flavour of sending, with the receivers in each state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sweep.ledger import Ledger, arguments, content
from sweep.scene import Scene, Strike
from sweep.victim import Fate, Victim
from sweep.world import TYPE, World
from upcall import EventFlag as F
from upcall.errors import MailboxFull
from upcall.flags import WORK_QUEUE, EventType
from upcall.host.drain import drain
from upcall.kern import arena, const, pages, proc
from upcall.kern.layout import mbox_at

Stage = Callable[[World], None]
SMALL, LARGE = 600, 100_000
"""Sizes of payloads that need a block of one span, and a run of spans."""


# ---- the receivers ---------------------------------------------------------------------------------------------------


def nobody(w: World) -> None:
    """No vcore has a host."""


def page_turn(w: World) -> None:
    """All vcores asleep, and the mailbox's page is used up."""
    unused(w)
    for _ in range(w.at.page_slots):
        w.setup()
        w.settle()


def carved(w: World) -> None:
    """All vcores asleep, and a span of the right class has blocks."""
    unused(w)
    w.setup(SMALL)
    w.settle()


def unused(w: World) -> None:
    """All vcores asleep; nothing was ever sent."""
    for v in range(w.scene.vcores):
        w.asleep(v)


def asleep(w: World) -> None:
    """All vcores asleep, and the mailbox has its page."""
    unused(w)
    w.setup()
    w.settle()


def polling(w: World) -> None:
    """The first vcore looks at the queue by itself, the others sleep."""
    for v in range(1, w.scene.vcores):
        w.asleep(v)
    w.host(0)
    w.setup()
    w.hosts[0].work()


def user(w: World) -> None:
    """The first vcore runs user code, the others sleep."""
    polling(w)
    w.hosts[0].leave()


def preempted(w: World) -> None:
    """The first vcore's core was taken, the others sleep."""
    polling(w)
    assert proc.proc_preempt_core(w.sup, 0)
    w.settle()


def bulk(w: World) -> None:
    """All cores were taken at once."""
    for v in range(w.scene.vcores):
        w.host(v)
    w.setup()
    w.hosts[0].work()
    assert proc.proc_preempt_all(w.sup) == w.scene.vcores
    w.settle()


# ---- the victims -----------------------------------------------------------------------------------------------------


class SenderScene(Scene):
    """A sender in one of the receivers' states. `handled` within a handler of the first vcore if `busy`."""

    stage: Stage = staticmethod(asleep)
    busy = False

    def play(self, w: World, strike: Strike) -> Fate:
        if not self.busy:
            self.stage(w)
            fate = strike()
        else:
            fate = self._strike_in_handler(w, strike)
        self.after(w, fate)
        return fate

    def _strike_in_handler(self, w: World, strike: Strike) -> Fate:
        fates: list[Fate] = []
        self.stage(w)
        first = w.hosts[0]
        first.during = lambda ev: None if fates else fates.append(strike())
        w.setup()
        first.work()
        return fates[0]

    def after(self, w: World, fate: Fate) -> None:
        """Nobody needs to know that a sender has died, or waits for one that is stopped."""
        w.settle()
        if w.hosts:
            w.check_handled()
        w.another()
        for v in range(self.vcores):
            if v not in w.hosts:
                w.host(v)
        w.settle()
        w.check_handled()
        if fate.stopped:
            self.without(w)
            fate.go_on()
            w.settle()
            w.check_handled()
        w.check_end(deaths=0)
        if not self.may_repeat:
            w.check_order()

    def without(self, w: World) -> None:
        """A sender that stays stopped costs nobody a wait: more events than a page or a limit has room for go through, and
        a drain comes to its end."""
        for _ in range(2 * w.at.page_slots):
            assert w.another(), f"no room while a sender is stopped{w.where()}"
            w.settle()
            w.check_handled()
        drain(w.handle, 0.0)


def one(v: Victim) -> None:
    v.sender()
    v.arm()
    v.send(16)


def two(v: Victim) -> None:
    v.sender()
    v.arm()
    v.send(16, 16)


def of_size(size: int) -> Callable[[Victim], None]:
    def act(v: Victim) -> None:
        v.sender()
        v.arm()
        v.send(size)

    return act


def many(v: Victim) -> None:
    """`send_many`: events of one call count as sent when it has returned."""
    sender, numbers = v.sender(), range(65, 71)
    for number in numbers:
        v.ledger.begin(number)
    v.arm()
    # Without arguments, which `send_many` does not take: the handler finds the number in the payload.
    sender.send_many(TYPE, [bytes([number]) * (SMALL if number == 68 else 16) for number in numbers])
    for number in numbers:
        v.ledger.returned(number)


def full(v: Victim) -> None:
    v.sender()
    v.arm()
    with suppress(MailboxFull):
        v.send(16)


def of_size_full(v: Victim) -> None:
    v.sender()
    v.arm()
    with suppress(MailboxFull):
        v.send(LARGE)


class ManyScene(SenderScene):
    """Events without arguments."""

    def send(self, sender: Any, mailer: Any, ledger: Ledger, number: int, size: int) -> None:
        ledger.begin(number)
        sender.send(TYPE, bytes([number]) * 16)
        ledger.returned(number)


class MailScene(SenderScene):
    """Mail to the first vcore, without a queue."""

    private = False

    def send(self, sender: Any, mailer: Any, ledger: Ledger, number: int, size: int) -> None:
        self.post(mailer, ledger, number, size, self.private)


class KernelScene(SenderScene):
    """A kernel event, to the queue registered for it."""

    def define(self, program: Any) -> None:
        super().define(program)
        program.on(EventType.ALARM)(print)
        program.kernel_queue(EventType.ALARM, "queue")

    def register(self, host: Any, number: int) -> None:
        host.handle(const.EV_ALARM)

    def send(self, sender: Any, mailer: Any, ledger: Ledger, number: int, size: int) -> None:
        ledger.begin(number)
        status = mailer.kernel_event(const.EV_ALARM, content(number, size), *arguments(number, size).values())
        assert status == const.OK
        ledger.returned(number)


class FullScene(SenderScene):
    """A mailbox at its limit, or a pool without room; nobody looks until the victim has died, stopped, or waits."""

    limit = 2
    fill = 2
    on_full = "raise"
    size = 16

    def define(self, program: Any) -> None:
        self.queue = {"limit": self.limit or None, "on_full": self.on_full}
        super().define(program)

    def stage(self, w: World) -> None:  # type: ignore[override]
        for _ in range(self.fill):
            assert w.setup(self.size)

    def meanwhile(self, w: World, pid: int) -> int | None:
        """A sender that waits for room gets some."""
        if self.on_full != "block":
            return None
        at = mbox_at(w.at, w.event.queue_mbox(w.at, 0)) + const.MB_ROOM_WAITERS if self.limit else 0
        at = at or w.at.procinfo + const.PI_POOL_WAITERS
        status = w.wait_for(pid, lambda: w.segment.u32(at))
        if status is None:
            self._make_room(w)
        return status

    def _make_room(self, w: World) -> None:
        for v in range(self.vcores):
            if v not in w.hosts:
                w.asleep(v)

    def without(self, w: World) -> None:
        """A pool of these few pages is full as long as somebody stopped keeps one."""
        if self.limit and self.on_full != "bit":
            super().without(w)
        drain(w.handle, 0.0)

    def after(self, w: World, fate: Fate) -> None:
        """The other sender would wait too."""
        if self.on_full == "block":
            self._make_room(w)
        super().after(w, fate)


class FullBitScene(FullScene):
    """No room for the message: its type's bit instead."""

    on_full = "bit"

    def send(self, sender: Any, mailer: Any, ledger: Ledger, number: int, size: int) -> None:
        if number < 65:
            super().send(sender, mailer, ledger, number, size)
            return
        ledger.begin(number)
        before = ledger.bit_begun()
        sender.send(TYPE, content(number, size), **arguments(number, size))
        ledger.bit_returned(before)


class ScavengeScene(SenderScene):
    """Dead senders have left a page, blocks of each kind and a claim; the victim gives them back, or dies at it."""

    def stage(self, w: World) -> None:  # type: ignore[override]
        unused(w)
        ghost = w.ghost()
        seg = ghost.seg
        assert pages.alloc_page(seg)
        assert arena.alloc_block(seg, SMALL)
        assert arena.alloc_block(seg, LARGE)
        assert arena.claim_span(seg, 4)
        ghost.die()


def scavenge(v: Victim) -> None:
    seg = v.handle.thread().seg
    v.arm()
    pages.scavenge_pages(seg)
    arena.scavenge_arena(seg)


SPAM = F.SPAM_PUBLIC | F.IPI
FLAVOURS: dict[str, dict[str, Any]] = {
    "default": {},
    "nothrottle": {"flags": WORK_QUEUE | F.NOTHROTTLE},
    "roundrobin": {"flags": WORK_QUEUE | F.ROUNDROBIN},
    "appro": {"flags": WORK_QUEUE | F.VCORE_APPRO},
    "thread": {"flags": WORK_QUEUE | F.THREAD},
    "bit": {"flags": WORK_QUEUE | F.NOMSG},
    "public": {"flags": F.IPI, "queue": {"mailbox": "vcore"}},
    "private": {"flags": F.IPI | F.VCORE_PRIVATE},
    "spam": {"flags": SPAM, "may_repeat": True},
    "must-run": {"flags": SPAM | F.VCORE_MUST_RUN, "may_repeat": True},
    "spam-bit": {"flags": SPAM | F.NOMSG, "may_repeat": True},
    "one-vcore": {"vcores": 1},
}
STAGES: dict[str, Stage] = {"asleep": asleep, "polling": polling, "nobody": nobody}
MORE_STAGES: dict[str, Stage] = {
    "unused": unused, "user": user, "preempted": preempted, "bulk": bulk,
}  # fmt: skip


def _scenes() -> list[Scene]:
    found: list[Scene] = []
    for flavour, fields in FLAVOURS.items():
        for name, stage in STAGES.items():
            found.append(SenderScene(f"send/{flavour}/{name}", one, stage=stage, **fields))
    for name, stage in MORE_STAGES.items():
        found.append(SenderScene(f"send/default/{name}", one, stage=stage))
    bit = FLAVOURS["bit"]
    return [
        *found,
        SenderScene("send/default/busy", one, stage=polling, busy=True),
        SenderScene("send/bit/busy", one, stage=polling, busy=True, **bit),
        SenderScene("send/default/two", two),
        SenderScene("send/limit", one, queue={"limit": 3, "on_full": "raise"}),
        SenderScene("send/default/page-turn", one, stage=page_turn),
        SenderScene("send/small/unused", of_size(SMALL), stage=unused),
        SenderScene("send/small/carved", of_size(SMALL), stage=carved),
        SenderScene("send/large/unused", of_size(LARGE), stage=unused),
        ManyScene("send/many", many),
        MailScene("post/public/asleep", one),
        MailScene("post/public/polling", one, stage=polling),
        MailScene("post/public/user", one, stage=user),
        MailScene("post/public/nobody", one, stage=nobody),
        MailScene("post/private/asleep", one, private=True),
        MailScene("post/private/user", one, stage=user, private=True),
        KernelScene("kernel-event/asleep", one),
        FullScene("full/limit/raise", full),
        FullBitScene("full/limit/bit", one),
        FullScene("full/limit/block", one, on_full="block"),
        FullScene("full/pages/raise", full, limit=0, pages=4, fill=12),
        FullScene("full/pages/block", one, limit=0, pages=4, fill=12, on_full="block"),
        FullBitScene("full/pages/bit", one, limit=0, pages=4, fill=12),
        FullScene("full/blocks/raise", of_size_full, limit=0, fill=3, size=LARGE),
        ScavengeScene("scavenge", scavenge),
    ]


SCENES = _scenes()
