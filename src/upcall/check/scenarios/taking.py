"""Taking from a mailbox, step by step: behind slots that were passed over, in batches, what became READY again behind a
cursor; and pages that are recycled under the feet of who walks along them."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import DIED, Process
from ..verdict import State
from .cases import case, variants
from .pages import BOX, TINY, consumer, producer, whole
from .properties import Quiet, bounded_duplicates, in_order


@case("G6")
def taken_behind_a_claim(s: Scenario) -> None:
    """A consumer passes over a slot whose sender is at work; what that one sends next is not taken before it."""
    p = Process(s, geometry=(1, 1, 64, 8, 4, 2, 1))
    producer(p, "producer", 1, 2)
    consumer(p, "consumer", 3)
    in_order(p, 1, 2)
    whole(p)


@case("G6")
def batch_behind_a_claim(s: Scenario) -> None:
    """The same for a batch: it ends where an earlier message of the same sender may have become READY."""
    p = Process(s, geometry=(1, 1, 64, 8, 4, 2, 1))
    other = p.attach()
    sender, seg, d, ucq, mbox = p.attach(), p.attach(), p.life.machine.door, p.kern.ucq, p.parlib.mbox
    # The first slot is another sender's message, the second is claimed by a sender that goes on while the batch is taken.
    assert ucq.send_ucq_msg(other, BOX, p.message(9)) == const.OK
    where = ucq.claim_slot(sender, BOX)
    assert ucq.send_ucq_msg(other, BOX, p.message(8)) == const.OK
    first, second = p.message(1), p.message(2)

    def sends() -> None:
        at = ucq.slot_at(sender, where)
        ucq.fill_slot(sender, at, first)
        d.xchg64(sender.mem, at, p.kern.layout.word(const.READY, where >> 32, sender.me))
        s.note("sent", 1, const.OK)
        s.note("sent", 2, ucq.send_ucq_msg(sender, BOX, second))

    def takes() -> None:
        cur = mbox.Cursor(BOX)
        i = 0
        while i < 6:
            # Two one by one, past the claim; then a batch; then the rest.
            at = mbox.take_like(seg, cur, const.TYPE_PROGRAM, 0) if i in (2, 3) else mbox.take(seg, cur)
            if at != 0:
                s.note("took", i, d.ld16(seg.mem, at + const.SL_ARG1))
            i += 1

    s.actor(sends, name="sender", slot=sender.my_slot)
    s.actor(takes, name="consumer", slot=seg.my_slot)

    @s.at_end
    def ordered(state: State) -> None:
        order = [arg for _, arg in sorted(state.noted("took"))]
        if 2 in order:
            assert 1 in order[: order.index(2)], f"G6: of 1 and 2, sent in this order, 2 was taken first: {order}"


def again_behind_a_cursor(s: Scenario, *, recoverer_dies: bool = False) -> None:
    """A vcore died with a message in hand; one whose cursor has passed it is told, and finds it."""
    p = Process(s, geometry=TINY)
    gone, seg = p.attach(), p.attach()
    mbox, d = p.parlib.mbox, p.life.machine.door
    assert p.kern.ucq.send_ucq_msg(gone, BOX, p.message(1)) == const.OK
    theirs, cur = mbox.Cursor(BOX), mbox.Cursor(BOX)
    assert mbox.take(gone, theirs)
    assert mbox.take(seg, cur) == 0
    at = p.kern.layout.slot_record_at(p.at, gone.my_slot) + const.AS_WORD
    p.set(at, p.get(at) & ~const.SLOT_GEN_MASK | 2)
    first, second = p.attach(), p.attach()

    def recovers(own: Any, after: int | None) -> Any:
        def body() -> None:
            if after is not None:
                s.rest(after)
            mbox.recover_mbox(own, BOX)
            s.interrupt(60)

        return body

    s.actor(recovers(first, None), name="first", slot=first.my_slot, mortal=recoverer_dies)
    if recoverer_dies:
        s.actor(recovers(second, DIED + 0), name="second", slot=second.my_slot, mortal=False)

    def looks() -> None:
        s.rest(60)
        if mbox.news(seg, cur):
            at = mbox.take(seg, cur)
            if at != 0:
                s.note("got", d.ld16(seg.mem, at + const.SL_ARG1))
                mbox.put_done(seg, cur, cur.taken)

    s.actor(looks, name="vcore 1", slot=seg.my_slot, mortal=False)

    @s.at_end
    def found(state: State) -> None:
        assert state.count("got", 1), "G1: what came back from dead hands is not found"


variants(again_behind_a_cursor, ("G1", "G4"), {"usual": {}})
variants(again_behind_a_cursor, ("G1", "G4"), {"by_one_that_dies": {"recoverer_dies": True}}, deaths=1)


@case("G1", "G4")
def put_back_behind_a_cursor(s: Scenario) -> None:
    """A message that could not be made a letter is put back; one whose cursor has passed it finds it."""
    p = Process(s, geometry=TINY)
    own, seg = p.attach(), p.attach()
    mbox, d = p.parlib.mbox, p.life.machine.door
    assert p.kern.ucq.send_ucq_msg(own, BOX, p.message(1)) == const.OK
    theirs, cur = mbox.Cursor(BOX), mbox.Cursor(BOX)
    assert mbox.take(own, theirs)
    assert mbox.take(seg, cur) == 0

    def puts() -> None:
        mbox.put_back(own, BOX, theirs.taken)
        s.interrupt(60)

    def looks() -> None:
        i = 0
        while i < 2:
            at = mbox.take(seg, cur) if i == 0 or mbox.news(seg, cur) else 0
            if at != 0:
                s.note("got", d.ld16(seg.mem, at + const.SL_ARG1))
                mbox.put_done(seg, cur, cur.taken)
            if i == 0:
                s.rest(60)
            i += 1

    s.actor(puts, name="vcore 0", slot=own.my_slot)
    s.actor(looks, name="vcore 1", slot=seg.my_slot)

    @s.at_end
    def found(state: State) -> None:
        assert state.count("got", 1), "G1: what was put back is not found"


@case("G4")
def put_back_by_one_declared_dead(s: Scenario) -> None:
    """A vcore believed dead puts back what has been delivered to another meanwhile: that one keeps it."""
    p = Process(s, geometry=TINY)
    own, seg, third = p.attach(), p.attach(), p.attach()
    mbox = p.parlib.mbox
    assert p.kern.ucq.send_ucq_msg(own, BOX, p.message(1)) == const.OK
    theirs, cur, last = mbox.Cursor(BOX), mbox.Cursor(BOX), mbox.Cursor(BOX)
    assert mbox.take(own, theirs)
    where = theirs.taken
    assert mbox.put_back(own, BOX, where)
    assert mbox.take(seg, cur)

    def puts() -> None:
        mbox.put_back(own, BOX, where)

    def holds() -> None:
        s.note("got", 1)
        mbox.put_done(seg, cur, cur.taken)

    def looks() -> None:
        if mbox.take(third, last):
            s.note("got", 1)

    s.actor(puts, name="vcore 0", slot=own.my_slot)
    s.actor(holds, name="vcore 1", slot=seg.my_slot)
    s.actor(looks, name="vcore 2", slot=third.my_slot)
    bounded_duplicates(p)


# ---- recycled pages --------------------------------------------------------------------------------------------------


def recycled(s: Scenario, *, walker: str) -> None:
    """Somebody walks along a mailbox while its pages are given back, and used again for another mailbox."""
    p = Process(s, geometry=(1, 2, 64, 8, 1, 3, 1))
    p.queue(queue=0)
    p.queue(queue=1)
    seg, other, mover = p.attach(), p.attach(), p.attach()
    ucq, mbox, kern = p.kern.ucq, p.parlib.mbox, p.kern
    second = p.kern.event.queue_mbox(p.at, 1)
    # Two messages, each in a page of its own; the first is in hand.
    assert ucq.send_ucq_msg(other, BOX, p.message(1)) == const.OK
    assert ucq.send_ucq_msg(other, BOX, p.message(2)) == const.OK
    cur = mbox.Cursor(BOX)
    assert mbox.take(mover, cur)
    place = cur.taken
    late = mbox.Cursor(BOX)
    if walker == "consumer":
        assert mbox.take(seg, late)  # the second message: the cursor stands in its page
        taken_late = late.taken

    def moves() -> None:
        mbox.put_done(mover, cur, place)
        ucq.advance_head(mover, BOX)
        # The page that has come back goes to the other mailbox, and on.
        s.note("sent", 3, ucq.send_ucq_msg(mover, second, p.message(3)))
        s.note("sent", 4, ucq.send_ucq_msg(mover, second, p.message(4)))

    def walks() -> None:
        if walker == "producer":
            s.note("sent", 5, ucq.send_ucq_msg(seg, BOX, p.message(5)))
        elif walker == "head":
            ucq.advance_head(seg, BOX)
        elif walker == "depth":
            n = ucq.mbox_depth(seg, BOX)
            assert n <= 2, f"G11: {n} messages wait, of two that were sent"
        elif walker == "open":
            n = ucq.count_open(seg, BOX, 0, 3)
            assert n in (1, 2, 3), f"G11: {n} messages are open, of two, one of which nobody takes"
        elif walker == "ready":
            assert mbox.has_ready(seg, BOX), "G2: a message waits, and is not seen"
        elif walker == "waiting":
            assert mbox.waiting_in(seg, BOX, 0), "G1: a message waits, and a drain does not wait for it"
        elif walker == "end":
            end = mbox.mbox_end(seg, BOX)
            assert end, "G1: the end of a mailbox that is used is not found"
            assert mbox.waiting_in(seg, BOX, end), "G1: a message waits, and a drain does not wait for it"
        elif walker == "recoverer":
            mbox.recover_mbox(seg, BOX)
        elif walker == "scavenger":
            kern.pages.scavenge_pages(seg)
        elif walker == "mail":
            assert p.parlib.recover.mail_waits(seg, BOX), "G1: a message waits, and the segment is removed"
        else:
            mbox.put_done(seg, late, taken_late)
            mbox.take(seg, late)
            s.note("at", late.page)

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(walks, name=walker, slot=seg.my_slot)

    @s.at_end
    def whole_chains(state: State) -> None:
        quiet = Quiet(p, state)
        first, then = list(quiet.chain(BOX)), list(quiet.chain(second))
        assert not set(first) & set(then), f"a page is in two mailboxes: {first}, {then}"
        for box, pages in ((BOX, first), (second, then)):
            for page in pages:
                at = quiet.layout.page_at(p.at, page)
                assert state.get(at + const.PG_WORD) & 15 != const.PAGE_FREE, f"page {page} is free, and in a mailbox"
                assert state.get(at + const.PG_MBOX) == box, f"page {page} of mailbox {box} says it is another's"
        left = {arg: mbox for arg, _, mbox in quiet.messages(const.READY)}
        for arg, status in state.noted("sent"):
            if status == const.OK:
                assert left.get(arg) == (second if arg in (3, 4) else BOX), f"G1: message {arg} is gone"


WALKERS = ("producer", "head", "depth", "open", "ready", "waiting", "end", "recoverer", "scavenger", "mail")
variants(recycled, ("G1", "G10", "G11"), {f"under_a_{name}": {"walker": name} for name in WALKERS}, preemptions=3)


@case("G1", "G3", preemptions=2)
def linked_by_the_dead(s: Scenario) -> None:
    """A producer died behind linking a page, before it said so: scavengers leave the page, while the head moves on."""
    p = Process(s, geometry=(1, 1, 64, 8, 1, 3, 1))
    gone, mover, seg = p.attach(), p.attach(), p.attach()
    ucq, mbox, pages = p.kern.ucq, p.parlib.mbox, p.kern.pages
    assert ucq.send_ucq_msg(gone, BOX, p.message(1)) == const.OK
    assert ucq.send_ucq_msg(gone, BOX, p.message(2)) == const.OK
    cur = mbox.Cursor(BOX)
    assert mbox.take(mover, cur)
    place = cur.taken
    layout = p.kern.layout
    page = p.get(layout.page_at(p.at, place & const.PAGE_MASK) + const.PG_NEXT) & const.PAGE_MASK
    word = p.get(layout.page_at(p.at, page) + const.PG_WORD)
    p.set(
        layout.page_at(p.at, page) + const.PG_WORD, layout.word(const.PAGE_CLAIMED, word >> 8 & const.GEN_MASK, gone.me)
    )
    at = layout.slot_record_at(p.at, gone.my_slot) + const.AS_WORD
    p.set(at, p.get(at) & ~const.SLOT_GEN_MASK | 2)

    def moves() -> None:
        mbox.put_done(mover, cur, place)
        ucq.advance_head(mover, BOX)

    def scavenges() -> None:
        pages.scavenge_pages(seg)

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(scavenges, name="scavenger", slot=seg.my_slot)

    @s.at_end
    def there(state: State) -> None:
        quiet = Quiet(p, state)
        for number in quiet.chain(BOX):
            word = state.get(layout.page_at(p.at, number) + const.PG_WORD)
            assert word & 15 != const.PAGE_FREE, f"page {number} is free, and in a mailbox"


@case("G11", preemptions=1)
def limit_behind_one_that_does_not_move(s: Scenario) -> None:
    """A sender that does not move uses up one of a limit, not all of it."""
    p = Process(s, geometry=(1, 1, 64, 8, 4, 2, 1))
    p.queue(limit=2)
    assert p.kern.ucq.claim_slot(p.attach(), BOX)
    producer(p, "sender", 1, 2, 3)
    consumer(p, "consumer", 4)

    @s.at_end
    def not_all(state: State) -> None:
        assert state.count("sent", 1, const.OK), "G11: one stopped sender stops all others"
        done = sum(state.get(at) & 15 == const.DONE for _, at in Quiet(p, state).slots(BOX))
        ready = sum(1 for _ in Quiet(p, state).messages(const.READY))
        sent = sum(status == const.OK for _, status in state.noted("sent"))
        assert done + ready == sent, f"G1: {sent} sent, {done} done, {ready} wait"


@case("G11")
def limit_counts_what_is_open(s: Scenario) -> None:
    """Behind a claim that does not move everything is done: there is room under the limit."""
    p = Process(s, geometry=(1, 1, 64, 8, 4, 2, 1))
    p.queue(limit=2)
    seg = p.attach()
    assert p.kern.ucq.claim_slot(p.attach(), BOX)
    assert p.kern.ucq.send_ucq_msg(seg, BOX, p.message(1)) == const.OK
    cur = p.parlib.mbox.Cursor(BOX)
    assert p.parlib.mbox.take(seg, cur)
    p.parlib.mbox.put_done(seg, cur, cur.taken)
    producer(p, "sender", 2)

    @s.at_end
    def room(state: State) -> None:
        assert state.count("sent", 2, const.OK), "G11: one stopped sender stops all others"


@case("G1", "G4", deaths=1, preemptions=2)
def claim_of_the_dead(s: Scenario) -> None:
    """A sender dies with a claim, a consumer that passed over it makes it DONE; a living one's is left alone."""
    p = Process(s, geometry=(1, 1, 64, 8, 4, 2, 1))
    producer(p, "dies", 1)
    own = p.attach()

    def lives() -> None:
        s.note("sent", 2, p.kern.ucq.send_ucq_msg(own, BOX, p.message(2)))
        s.interrupt(60)

    s.actor(lives, name="lives", slot=own.my_slot, mortal=False)
    seg, mbox = p.attach(), p.parlib.mbox

    def reaps() -> None:
        cur = mbox.Cursor(BOX)
        i = 0
        while i < 4:
            at = mbox.take(seg, cur)
            if at != 0:
                s.note("got", p.life.machine.door.ld16(seg.mem, at + const.SL_ARG1))
                mbox.put_done(seg, cur, cur.taken)
            mbox.reap_skipped(seg, cur)
            i += 1
            if i == 2:
                s.rest(60)

    s.actor(reaps, name="consumer", slot=seg.my_slot, mortal=False)

    @s.at_end
    def there(state: State) -> None:
        assert state.count("got", 2), "G1: message 2 was sent, and is not found"
