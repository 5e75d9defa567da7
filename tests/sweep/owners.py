"""Those who look after others, and die or stop at it: recoverers, watchers, owners of the tables, supervisors; and whoever
attaches and detaches."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from typing import Any

from sweep.scene import Scene, Strike
from sweep.senders import LARGE, SMALL
from sweep.victim import Fate, Victim
from sweep.world import NAME, TYPE, World
from upcall import EventFlag as F
from upcall.errors import ProcessGone
from upcall.flags import WORK_QUEUE, EventType
from upcall.front import port
from upcall.host import owner, tables
from upcall.host.drain import drain
from upcall.host.settle import settle
from upcall.inspect.clean import clean
from upcall.kern import arena, const, pages, proc, ucq
from upcall.kern.layout import vcpd_at
from upcall.parlib.recover import announce, bit_in_hand, preempt_vcore
from upcall.parlib.watch import Watch, next_still, watch_sleeps, watch_wakes

HOST_LAYER = ("host/slots.py", "host/segment.py", "host/handle.py", "host/tables.py", "host/owner.py", "host/worker.py")
CLEAN = (*HOST_LAYER, "inspect/clean.py")
OURS = re.compile(r"segment|watch|vc\d+")


class OwnerScene(Scene):
    """Somebody without a vcore. Two vcores are asleep, unless the scene says otherwise."""

    def stage(self, w: World) -> None:
        w.asleep(0)
        w.asleep(1)

    def play(self, w: World, strike: Strike) -> Fate:
        self.stage(w)
        fate = strike()
        self.others(w, fate)
        if fate.stopped:
            fate.go_on()
            w.settle()
        self.end(w, fate)
        return fate

    def others(self, w: World, fate: Fate) -> None:
        """A sender and the vcores go on."""
        w.another()
        w.settle()
        w.check_handled()

    def end(self, w: World, fate: Fate) -> None:
        w.check_end(deaths=0)


# ---- taking over for the dead, and for those who do not move -----------------------------------------------------------


class DeadScene(OwnerScene):
    """The first vcore's host has died: with an event and a payload in its hands, mail, a claim, a page and blocks."""

    def stage(self, w: World) -> None:
        w.asleep(1)
        ghost = w.ghost(0)
        w.setup(SMALL)
        w.setup(16)
        ghost.take()
        self.post(w.mailer, w.ledger, 60, 16, False)
        assert ucq.claim_slot(ghost.seg, w.event.queue_mbox(w.at, 0))
        assert pages.alloc_page(ghost.seg)
        assert arena.alloc_block(ghost.seg, LARGE)
        ghost.die()

    def others(self, w: World, fate: Fate) -> None:
        """The next supervisor, or watcher, does it again."""
        w.another()
        w.settle()
        w.bury(0)
        w.settle()
        w.check_handled()


class DeadBitScene(OwnerScene):
    """It has died with a bit in its hands."""

    flags = WORK_QUEUE | F.NOMSG

    def stage(self, w: World) -> None:
        w.asleep(1)
        ghost = w.ghost(0)
        w.setup()
        box = w.event.queue_mbox(w.at, 0)
        at = w.layout.mbox_at(w.at, box) + const.MB_BITMAP + w.number // 64 * 8
        w.set(vcpd_at(w.at, 0) + const.VCPD_BIT, bit_in_hand(ghost.seg.me, box, w.number))
        w.set(at, w.get(at) & ~(1 << w.number % 64))
        ghost.die()

    def others(self, w: World, fate: Fate) -> None:
        w.bury(0)
        w.settle()
        w.check_handled()


class StillScene(OwnerScene):
    """The first vcore does not move, and has mail. `again`: it goes on not moving, so the next watcher looks too."""

    again = False

    def stage(self, w: World) -> None:
        w.asleep(1)
        w.host(0)
        w.setup()
        w.hosts[0].work()
        w.setup(16)
        self.post(w.mailer, w.ledger, 60, 16, False)

    def others(self, w: World, fate: Fate) -> None:
        w.another()
        if self.again:
            still = w.hosts.pop(0)
            preempt_vcore(w.sup, 0)
            w.settle()
            w.check_handled()
            w.hosts[0] = still
        w.settle()
        w.check_handled()


def recovering(v: Victim) -> None:
    seg = v.handle.thread().seg
    v.arm()
    settle(v.segment, seg, 0)
    announce(seg)


def preempting(v: Victim) -> None:
    seg = v.handle.thread().seg
    v.arm()
    preempt_vcore(seg, 0)


def watching(v: Victim) -> None:
    seg = v.handle.thread().seg
    seen = Watch()
    next_still(seg, seen, 0, 1_000, 10)
    v.arm()
    if next_still(seg, seen, 0, 2_000, 10) == 0:
        preempt_vcore(seg, 0)
    watch_sleeps(seg)
    watch_wakes(seg)


def taking_a_core(v: Victim) -> None:
    """The seed's preemption: a core is taken, and another vcore is told."""
    seg, mailer = v.handle.thread().seg, v.handle.vcore_sender()
    v.arm()
    if proc.proc_preempt_core(seg, 0):
        mailer.post_vcore(EventType.VCORE_PREEMPT, b"", 1, False, 0, 0, 0, 0)


def taking_all_cores(v: Victim) -> None:
    seg = v.handle.thread().seg
    v.arm()
    proc.proc_preempt_all(seg)


def giving_a_core(v: Victim) -> None:
    seg = v.handle.thread().seg
    v.arm()
    proc.startcore(seg, 0)


# ---- attaching, and the tables of names ------------------------------------------------------------------------------


def attaching(v: Victim) -> None:
    """Opens, attaches, sends, detaches, closes."""
    v.arm()
    v.send(16)
    v.handle.close()


class TableScene(OwnerScene):
    """Types and a queue are registered; so they are by whoever owns the process next."""

    lines = HOST_LAYER

    def others(self, w: World, fate: Fate) -> None:
        super().others(w, fate)
        if fate.stopped:
            fate.go_on()  # the owner's lock waits for its owner: nobody else needs it
        for name in ("first", "second"):
            tables.register_type(w.segment, w.sup, name)
        self.register_queue(w.segment, w.sup)
        types, queues = tables.types(w.segment), tables.queues(w.segment)
        assert sorted(types.values()) == sorted({TYPE, "first", "second"}), types
        assert sorted(queues.values()) == ["queue", "second"], queues
        number = next(number for number, name in queues.items() if name == "second")
        sender = port.Sender(w.segment.attachment, w.other.s, w.handle, number, port.current_thread())
        self.send(sender, w.mailer, w.ledger, 120, 16)
        w.settle()
        w.check_handled()

    def play(self, w: World, strike: Strike) -> Fate:
        try:
            return super().play(w, strike)
        finally:
            w.handle.refresh()

    @staticmethod
    def register_queue(segment: Any, seg: Any) -> None:
        tables.register_queue(
            segment, seg, "second", flags=int(WORK_QUEUE), vcore=0, mailbox=-1, limit=0, on_full=const.ON_FULL_RAISE
        )


def registering(v: Victim) -> None:
    seg = v.handle.thread().seg
    v.arm()
    tables.register_type(v.segment, seg, "first")
    TableScene.register_queue(v.segment, seg)
    tables.register_type(v.segment, seg, "second")


def draining(v: Victim) -> None:
    v.handle.thread()
    v.arm()
    drain(v.handle, 10.0)


class DrainScene(OwnerScene):
    """An event waits, and somebody waits until it has been handled."""

    def stage(self, w: World) -> None:
        super().stage(w)
        w.setup()

    def meanwhile(self, w: World, pid: int) -> int | None:
        status = w.wait_for(pid, lambda: w.segment.u32(w.at.procinfo + const.PI_DRAINERS))
        if status is None:
            w.settle()
        return status


# ---- supervisors -----------------------------------------------------------------------------------------------------


class CarryOnScene(OwnerScene):
    """The segment is unattended, and its workers carry on; somebody starts the process again, and takes them over."""

    lines = HOST_LAYER
    attended = False

    def others(self, w: World, fate: Fate) -> None:
        super().others(w, fate)
        if fate.stopped:
            fate.go_on()
        w.adopt()
        super().others(w, fate)


class NoRefusal(Exception):
    """Never raised."""


class AdoptScene(OwnerScene):
    """The segment is unattended, its first vcore's host is dead with an event in its hands, and events wait."""

    lines = HOST_LAYER
    attended = False
    refused: type[Exception] = NoRefusal
    """How a send may fail until the next start: who died on the way out has said already that the process ends."""

    def stage(self, w: World) -> None:
        ghost = w.ghost(0)
        w.setup(SMALL)
        w.setup(16)
        ghost.take()
        ghost.die()

    def others(self, w: World, fate: Fate) -> None:
        """Senders go on; whoever starts next adopts what waits. One that is stopped at it keeps its place."""
        with suppress(self.refused):
            w.another()
        if fate.stopped:
            fate.go_on()
        w.adopt()
        w.another()
        w.host(1)
        w.settle()
        w.check_handled()


class LeaveScene(AdoptScene):
    """The end of a run, with events waiting: they stay."""

    refused = ProcessGone


class CleanScene(AdoptScene):
    """Nobody is attached, and events wait: somebody cleans up, and lets them wait."""

    lines = CLEAN
    refused = ProcessGone

    def play(self, w: World, strike: Strike) -> Fate:
        self.stage(w)
        w.all_leave()
        fate = strike()
        if fate.stopped:
            fate.go_on()
        w.come_back()
        self.others(w, fate)
        self.end(w, fate)
        return fate


class EndScene(OwnerScene):
    """Nothing waits, and the segment is removed. Or it is still there, or half of it; then the next start finds its way."""

    lines = HOST_LAYER
    attended = False

    def play(self, w: World, strike: Strike) -> Fate:
        w.all_leave()
        fate = strike()
        if fate.stopped:
            fate.go_on()
        self.end(w, fate)
        return fate

    def end(self, w: World, fate: Fate) -> None:
        segment = owner.open_for_owner(w.program)
        stray = [file.name for file in segment.path.iterdir() if not OURS.fullmatch(file.name)]
        assert not stray, f"left beside the segment: {stray}"
        assert owner.finish(segment, segment.supervisor), "something waits"
        segment.close()
        assert not segment.path.exists(), f"left: {list(segment.path.iterdir())}"


class CreateScene(EndScene):
    """There is no segment yet."""

    def play(self, w: World, strike: Strike) -> Fate:
        shutil.rmtree(w.segment.path)
        return super().play(w, strike)


def adopting(v: Victim) -> None:
    v.arm()
    owner.open_for_owner(v.scene.program)


def finishing(v: Victim) -> None:
    """The end of a run."""
    segment = owner.open_for_owner(v.scene.program)
    v.arm()
    owner.finish(segment, segment.supervisor)
    segment.close()


def cleaning(v: Victim) -> None:
    """`upcall clean`."""
    v.arm()
    clean(only=[NAME])


SCENES: list[Scene] = [
    DeadScene("recover", recovering),
    DeadBitScene("recover/bit", recovering),
    StillScene("preempt", preempting),
    StillScene("preempt/again", preempting, again=True),
    StillScene("watch", watching),
    StillScene("take-core", taking_a_core),
    StillScene("take-all-cores", taking_all_cores),
    OwnerScene("startcore", giving_a_core),
    OwnerScene("attach", attaching, lines=HOST_LAYER),
    TableScene("tables", registering),
    DrainScene("drain", draining),
    AdoptScene("supervisor/adopt", adopting),
    CarryOnScene("supervisor/take-over", adopting),
    LeaveScene("supervisor/leave", finishing),
    EndScene("supervisor/end", finishing),
    CreateScene("supervisor/create", adopting),
    CleanScene("clean/waiting", cleaning),
    EndScene("clean/remove", cleaning, lines=CLEAN),
]
