"""Those who give back pages out of the middle of a mailbox, and die or stop at it: while somebody stands at its head who is
alive and does not move."""

from __future__ import annotations

from sweep.owners import OwnerScene
from sweep.senders import scavenge
from sweep.vcores import VcoreScene
from sweep.victim import Fate, Victim
from sweep.world import Ghost, World
from upcall.kern import ucq
from upcall.kern.layout import Msg
from upcall.parlib import mbox

DONE_PAGES = 3


def stand(w: World) -> Ghost:
    """Somebody stands in a claim at the head of the queue's mailbox."""
    ghost = w.ghost()
    assert ucq.claim_slot(ghost.seg, w.event.queue_mbox(w.at, 0))
    return ghost


def check_room(w: World) -> None:
    """Twice as much as the pool goes through behind it."""
    for _ in range(2 * w.scene.pages * w.at.page_slots):
        assert w.another(), f"no room while one does not move{w.where()}"
        w.settle()
        w.check_handled()


class BehindScene(OwnerScene):
    """Behind it are pages that are DONE, which no consumer passes any more, and an event that waits."""

    pages = 5
    ghost: Ghost

    def stage(self, w: World) -> None:
        super().stage(w)
        box, msg = w.event.queue_mbox(w.at, 0), Msg()
        self.ghost = stand(w)
        for _ in range(DONE_PAGES * w.at.page_slots - 1):
            assert ucq.send_ucq_msg(w.sup, box, msg) == 0
        cur, taken = mbox.Cursor(box), []
        while mbox.take(w.sup, cur):
            taken.append(cur.taken)
        for where in taken:
            mbox.put_done(w.sup, cur, where)
        w.setup()
        assert len(w.chain(box)) == DONE_PAGES + 1

    def others(self, w: World, fate: Fate) -> None:
        w.settle()
        w.check_handled()
        check_room(w)

    def end(self, w: World, fate: Fate) -> None:
        w.settle()
        self.ghost.die()
        w.bury(0)
        super().end(w, fate)


class TurnScene(VcoreScene):
    """A vcore handles what stands behind it, page by page."""

    pages = 6
    ghost: Ghost

    def stage(self, w: World) -> None:  # type: ignore[override]
        w.asleep(1)
        self.ghost = stand(w)
        for _ in range(DONE_PAGES * w.at.page_slots):
            w.setup()

    def check_others(self, w: World, but: tuple[int, ...] = ()) -> None:
        super().check_others(w, but)
        if but:
            return
        check_room(w)
        self.ghost.die()
        w.bury(0)


def tidy(v: Victim) -> None:
    seg = v.handle.thread().seg
    v.arm()
    ucq.tidy_mbox(seg, 2 * v.segment.geometry.max_vcores)


def send_more(v: Victim) -> None:
    """One more than there is room for in the last page: it finds the pool used up."""
    v.sender()
    v.arm()
    v.send(*[16] * v.segment.geometry.page_slots)


def work(v: Victim) -> None:
    host = v.host()
    host.enter()
    v.arm()
    host.work()


SCENES = [
    BehindScene("unlink/tidy", tidy),
    BehindScene("unlink/scavenge", scavenge),
    BehindScene("unlink/send", send_more),
    TurnScene("unlink/turn", work),
]
