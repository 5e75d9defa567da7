"""Pages that are recycled under somebody who is slow: it holds a place in a page that has left its mailbox meanwhile, and is
another's by now, or was claimed in vain and given back. And what it may see of such a page in weak memory."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import Process
from .cases import case, variants
from .pages import BOX
from .properties import whole_chains
from .unlinking import done_pages_leave, next_through, unlinker


def two_boxes(s: Scenario, pages: int = 4) -> tuple[Process, int]:
    """A process with two mailboxes, whose pages have one slot each; the number of the second mailbox."""
    p = Process(s, geometry=(1, 2, 64, 8, 1, pages, 1))
    p.queue(queue=0)
    p.queue(queue=1)
    return p, p.kern.event.queue_mbox(p.at, 1)


def use(p: Process, seg: Any, box: int, times: int) -> None:
    """So many messages have been through a mailbox: its slots' numbers are higher."""
    mbox = p.parlib.mbox
    cur = mbox.Cursor(box)
    for _ in range(times):
        assert p.kern.ucq.send_ucq_msg(seg, box, p.message(9)) == const.OK
        assert mbox.take(seg, cur)
        mbox.put_done(seg, cur, cur.taken)
    p.kern.ucq.advance_head(seg, box)


def send(p: Process, seg: Any, box: int, arg: int) -> None:
    assert p.kern.ucq.send_ucq_msg(seg, box, p.message(arg)) == const.OK


# ---- the page is another mailbox's -----------------------------------------------------------------------------------


def stale(s: Scenario, *, who: str, used: int = 0, others: int = 0) -> None:
    """Somebody stands in a page that is given back just then, and is the other mailbox's, with a page behind it.

    So many messages were `used` up in the first mailbox before, and in `others`."""
    p, second = two_boxes(s)
    seg, mover = p.attach(), p.attach()
    ucq, mbox, d = p.kern.ucq, p.parlib.mbox, p.life.machine.door
    use(p, mover, BOX, used)
    use(p, mover, second, others)
    cur, late = mbox.Cursor(BOX), mbox.Cursor(BOX)
    send(p, mover, BOX, 1)
    assert mbox.take(mover, cur)
    place = cur.taken
    assert mbox.take(seg, late) == 0  # stands at the end of its page
    tail = p.get(p.kern.layout.mbox_at(p.at, BOX) + const.MB_TAIL)
    send(p, mover, BOX, 2)
    end = mbox.mbox_end(seg, BOX)
    if who in ("producer", "end", "hint"):
        # Two producers wrote the hint in the wrong order.
        p.set(p.kern.layout.mbox_at(p.at, BOX) + const.MB_TAIL, tail)

    def moves() -> None:
        mbox.put_done(mover, cur, place)
        ucq.advance_head(mover, BOX)
        s.note("sent", 3, ucq.send_ucq_msg(mover, second, p.message(3)))
        s.note("sent", 4, ucq.send_ucq_msg(mover, second, p.message(4)))

    def stands() -> None:
        if who == "producer":
            s.note("sent", 5, ucq.send_ucq_msg(seg, BOX, p.message(5)))
        elif who == "consumer":
            at = mbox.take(seg, late)
            assert at, "G2: message 2 waits, and is not found"
            arg = d.ld16(seg.mem, at + const.SL_ARG1)
            assert arg == 2, f"G7: message {arg} is taken out of another mailbox"
        elif who == "head":
            ucq.advance_head(seg, BOX)
        elif who in ("limit", "hint"):
            assert not ucq.is_full(seg, BOX, 3), "G11: two messages wait, and are said to be three"
        elif who == "drain":
            assert mbox.waiting_in(seg, BOX, end), "G1: message 2 waits, and a drain does not wait for it"
        else:
            found = mbox.mbox_end(seg, BOX)
            assert mbox.waiting_in(seg, BOX, found), "G1: message 2 waits, and a drain does not wait for it"

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(stands, name=who, slot=seg.my_slot)
    whole_chains(p, {3: second, 4: second, 5: BOX})


STALE: dict[str, dict[str, Any]] = {
    "producer": {"who": "producer"},
    "consumer": {"who": "consumer"},
    "head": {"who": "head"},
    "limit": {"who": "limit", "used": 5},
    "hint": {"who": "hint", "others": 5},
    "drain": {"who": "drain", "others": 5},
    "end": {"who": "end", "used": 5},
}
variants(stale, ("G1", "G2", "G7", "G11"), STALE, preemptions=3)


@case("G11", preemptions=3)
def head_goes_under_a_limit(s: Scenario) -> None:
    """A sender looks whether its mailbox is full; the page at the head is given back just then, and is another mailbox's."""
    p, second = two_boxes(s, pages=6)
    seg, mover = p.attach(), p.attach()
    ucq, mbox = p.kern.ucq, p.parlib.mbox
    use(p, mover, BOX, 5)
    cur = mbox.Cursor(BOX)
    for arg in (9, 9, 2):
        send(p, mover, BOX, arg)
    assert mbox.take(mover, cur)
    mbox.put_done(mover, cur, cur.taken)

    def moves() -> None:
        mbox.take(mover, cur)
        mbox.put_done(mover, cur, cur.taken)
        ucq.advance_head(mover, BOX)
        i = 3
        while i < 6:
            s.note("sent", i, ucq.send_ucq_msg(mover, second, p.message(i)))
            i += 1

    def looks() -> None:
        assert not ucq.is_full(seg, BOX, 3), "G11: two messages wait, and are said to be three"

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(looks, name="sender", slot=seg.my_slot)
    whole_chains(p, {3: second, 4: second, 5: second})


@case("G1", "G7", "G11", preemptions=3)
def recycled_under_its_linker(s: Scenario) -> None:
    """A producer links a page behind its mailbox's last one; that is another mailbox's by then, with a page behind it."""
    p, second = two_boxes(s, pages=5)
    seg, mover = p.attach(), p.attach()
    ucq, mbox = p.kern.ucq, p.parlib.mbox
    cur = mbox.Cursor(BOX)
    send(p, mover, BOX, 1)
    assert mbox.take(mover, cur)
    place = cur.taken

    def moves() -> None:
        s.note("sent", 2, ucq.send_ucq_msg(mover, BOX, p.message(2)))
        mbox.put_done(mover, cur, place)
        ucq.advance_head(mover, BOX)
        s.note("sent", 3, ucq.send_ucq_msg(mover, second, p.message(3)))
        s.note("sent", 4, ucq.send_ucq_msg(mover, second, p.message(4)))

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(lambda: s.note("sent", 5, ucq.send_ucq_msg(seg, BOX, p.message(5))), name="producer", slot=seg.my_slot)
    whole_chains(p, {2: BOX, 3: second, 4: second, 5: BOX})


@case("G1", "G11", preemptions=3)
def stale_in_the_middle(s: Scenario) -> None:
    """Somebody gives back a page that has left the middle of its mailbox by then, and is another's."""
    p, second = two_boxes(s, pages=5)
    still, seg, mover = p.attach(), p.attach(), p.attach()
    ucq, mbox = p.kern.ucq, p.parlib.mbox
    hand, cur = mbox.Cursor(BOX), mbox.Cursor(BOX)
    send(p, mover, BOX, 9)
    assert mbox.take(still, hand)
    send(p, mover, BOX, 9)
    assert mbox.take(mover, cur)
    where = cur.taken
    mbox.put_done(mover, cur, where)
    send(p, mover, BOX, 1)

    def moves() -> None:
        ucq.tidy_mbox(mover, BOX)
        s.note("sent", 3, ucq.send_ucq_msg(mover, second, p.message(3)))
        s.note("sent", 4, ucq.send_ucq_msg(mover, second, p.message(4)))

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(lambda: ucq.give_back(seg, BOX, where & const.PAGE_MASK, where >> 32), name="slow", slot=seg.my_slot)
    whole_chains(p, {3: second, 4: second})


def first_page_goes(s: Scenario, *, sweeps: bool = False, in_vain: bool = False) -> None:
    """Somebody looks along a mailbox for a finished page, and its first one is given back just then: the other leaves, too.

    The first one is another mailbox's then, or was claimed in vain."""
    p, second = two_boxes(s, pages=5)
    still, seg, mover = p.attach(), p.attach(), p.attach()
    ucq, mbox, pages, d = p.kern.ucq, p.parlib.mbox, p.kern.pages, p.life.machine.door
    hand, cur = mbox.Cursor(BOX), mbox.Cursor(BOX)
    send(p, mover, BOX, 9)
    assert mbox.take(mover, cur)
    first = cur.taken
    send(p, mover, BOX, 9)
    assert mbox.take(still, hand)
    send(p, mover, BOX, 9)
    assert mbox.take(mover, cur)
    finished = cur.taken
    mbox.put_done(mover, cur, finished)
    send(p, mover, BOX, 1)

    def moves() -> None:
        mbox.put_done(mover, cur, first)
        ucq.advance_head(mover, BOX)
        if in_vain:
            # As `next_page` does that comes too late.
            page = pages.alloc_page(mover)
            gen = pages.page_generation(mover, page)
            d.st64(mover.mem, p.kern.layout.page_at(mover, page) + const.PG_NEXT, p.kern.layout.place(0, 0, gen))
            pages.abandon_page(mover, page, gen)
        else:
            s.note("sent", 3, ucq.send_ucq_msg(mover, second, p.message(3)))
            s.note("sent", 4, ucq.send_ucq_msg(mover, second, p.message(4)))

    def looks() -> None:
        if sweeps:
            ucq.tidy_mbox(seg, BOX)
        else:
            ucq.give_back(seg, BOX, finished & const.PAGE_MASK, finished >> 32)

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(looks, name="slow", slot=seg.my_slot)
    whole_chains(p, {3: second, 4: second})
    done_pages_leave(p)


variants(
    first_page_goes,
    ("G1", "G3"),
    {
        "as_another_is_given_back": {},
        "and_was_claimed_in_vain": {"in_vain": True},
        "under_a_sweep": {"sweeps": True},
        "under_a_sweep_and_was_claimed_in_vain": {"sweeps": True, "in_vain": True},
    },
    preemptions=3,
)


@case("G1", "G3", preemptions=2)
def stale_in_the_scavengers_walk(s: Scenario) -> None:
    """A page whose linker died: the page from which a scavenger comes to it is another mailbox's by then."""
    p, second = two_boxes(s)
    gone, seg, mover = p.attach(), p.attach(), p.attach()
    ucq, mbox, layout = p.kern.ucq, p.parlib.mbox, p.kern.layout
    cur = mbox.Cursor(BOX)
    send(p, gone, BOX, 1)
    send(p, gone, BOX, 2)
    assert mbox.take(mover, cur)
    place = cur.taken
    page = p.get(layout.page_at(p.at, place & const.PAGE_MASK) + const.PG_NEXT) & const.PAGE_MASK
    at = layout.page_at(p.at, page) + const.PG_WORD
    p.set(at, layout.word(const.PAGE_CLAIMED, p.get(at) >> 8 & const.GEN_MASK, gone.me))
    at = layout.slot_record_at(p.at, gone.my_slot) + const.AS_WORD
    p.set(at, p.get(at) & ~const.SLOT_GEN_MASK | 2)

    def moves() -> None:
        mbox.put_done(mover, cur, place)
        ucq.advance_head(mover, BOX)
        s.note("sent", 3, ucq.send_ucq_msg(mover, second, p.message(3)))
        s.note("sent", 4, ucq.send_ucq_msg(mover, second, p.message(4)))

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(lambda: p.kern.pages.scavenge_page(seg, page), name="scavenger", slot=seg.my_slot)
    whole_chains(p, {3: second, 4: second})


# ---- the page is just being used again --------------------------------------------------------------------------------


@case("G2", preemptions=2)
def used_again_under_a_cursor(s: Scenario) -> None:
    """A consumer stands in the middle of a mailbox; its page is taken out, and used again: it finds what waits."""
    p, second = two_boxes(s)
    still, seg, other = p.attach(), p.attach(), p.attach()
    ucq, mbox = p.kern.ucq, p.parlib.mbox
    hand, cur = mbox.Cursor(BOX), mbox.Cursor(BOX)
    send(p, other, BOX, 9)
    assert mbox.take(still, hand)
    send(p, other, BOX, 9)
    assert mbox.take(seg, cur)
    mbox.put_done(seg, cur, cur.taken)
    send(p, other, BOX, 1)
    unlinker(p, "unlinker")
    s.actor(lambda: s.note("sent", 3, ucq.send_ucq_msg(other, second, p.message(3))), name="other", slot=other.my_slot)

    def takes() -> None:
        assert mbox.take(seg, cur), "G2: message 1 waits, and is not found"
        s.note("got", 1)

    s.actor(takes, name="consumer", slot=seg.my_slot)
    whole_chains(p, {3: second})


@case("G2", preemptions=2)
def used_again_under_the_head(s: Scenario) -> None:
    """A consumer comes from the head, which moves on just then; the page it leaves is used again for another mailbox."""
    p, second = two_boxes(s)
    seg, mover, other = p.attach(), p.attach(), p.attach()
    ucq, mbox = p.kern.ucq, p.parlib.mbox
    send(p, other, BOX, 1)
    send(p, other, BOX, 2)
    cur = mbox.Cursor(BOX)
    assert mbox.take(mover, cur)
    place = cur.taken

    def moves() -> None:
        mbox.put_done(mover, cur, place)
        ucq.advance_head(mover, BOX)

    def takes() -> None:
        assert mbox.take(seg, mbox.Cursor(BOX)), "G2: message 2 waits, and is not found"
        s.note("got", 2)

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(lambda: s.note("sent", 3, ucq.send_ucq_msg(other, second, p.message(3))), name="other", slot=other.my_slot)
    s.actor(takes, name="consumer", slot=seg.my_slot)
    whole_chains(p, {3: second})


# ---- the page was claimed in vain -------------------------------------------------------------------------------------


@case("G1", "G2", "G11")
def claimed_in_vain(s: Scenario) -> None:
    """A page was given back, and claimed by one who lost the race to link it: nobody takes it for a mailbox's end.

    It has the generation again in which a slow producer and a slow consumer knew it."""
    p, _ = two_boxes(s)
    seg, mover, producer = p.attach(), p.attach(), p.attach()
    ucq, mbox, layout, pages = p.kern.ucq, p.parlib.mbox, p.kern.layout, p.kern.pages
    d = p.life.machine.door
    cur, late = mbox.Cursor(BOX), mbox.Cursor(BOX)
    send(p, mover, BOX, 1)
    assert mbox.take(mover, cur)
    assert mbox.take(seg, late) == 0
    tail = p.get(layout.mbox_at(p.at, BOX) + const.MB_TAIL)
    send(p, mover, BOX, 2)
    mbox.put_done(mover, cur, cur.taken)
    ucq.advance_head(mover, BOX)
    # As `next_page` does that comes too late.
    page = pages.alloc_page(mover)
    assert page == late.page
    gen = pages.page_generation(mover, page)
    at = layout.page_at(p.at, page)
    p.set(at + const.PG_NEXT, layout.place(0, 0, gen))
    pages.abandon_page(mover, page, gen)
    p.set(layout.mbox_at(p.at, BOX) + const.MB_TAIL, tail)

    def takes() -> None:
        at = mbox.take(seg, late)
        assert at, "G2: message 2 waits, and is not found"
        s.note("got", d.ld16(seg.mem, at + const.SL_ARG1))

    s.actor(takes, name="consumer", slot=seg.my_slot)
    s.actor(
        lambda: s.note("sent", 5, ucq.send_ucq_msg(producer, BOX, p.message(5))), name="producer", slot=producer.my_slot
    )
    whole_chains(p, {5: BOX})


def claimed_in_vain_under(s: Scenario, *, walker: str) -> None:
    """Somebody looks from the head whether a message waits, while its page is given back, and claimed in vain."""
    p, _ = two_boxes(s)
    seg, mover = p.attach(), p.attach()
    ucq, mbox, layout, pages = p.kern.ucq, p.parlib.mbox, p.kern.layout, p.kern.pages
    d, mail_waits = p.life.machine.door, p.parlib.recover.mail_waits
    cur = mbox.Cursor(BOX)
    send(p, mover, BOX, 1)
    assert mbox.take(mover, cur)
    send(p, mover, BOX, 2)

    def moves() -> None:
        mbox.put_done(mover, cur, cur.taken)
        ucq.advance_head(mover, BOX)
        # As `next_page` does that comes too late.
        page = pages.alloc_page(mover)
        gen = pages.page_generation(mover, page)
        d.st64(mover.mem, layout.page_at(mover, page) + const.PG_NEXT, layout.place(0, 0, gen))
        pages.abandon_page(mover, page, gen)

    def looks() -> None:
        if walker == "mail":
            assert mail_waits(seg, BOX), "G1: a message waits, and the segment is removed"
        else:
            assert mbox.has_ready(seg, BOX), "G2: a message waits, and is not seen"

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(looks, name=walker, slot=seg.my_slot)


variants(
    claimed_in_vain_under, ("G1", "G2"), {"who_removes": {"walker": "mail"}, "a_watcher": {"walker": "ready"}}
)  # fmt: skip


# ---- nobody's stop keeps a page ---------------------------------------------------------------------------------------


@case("G3", deaths=1, preemptions=2)
def linker_is_slow(s: Scenario) -> None:
    """Who linked a page is slow to say so; who takes it out later dies: the page comes back all the same."""
    p, _ = two_boxes(s)
    still, linker, seg = p.attach(), p.attach(), p.attach()
    mbox, layout = p.parlib.mbox, p.kern.layout
    hand, cur = mbox.Cursor(BOX), mbox.Cursor(BOX)
    send(p, seg, BOX, 9)
    assert mbox.take(still, hand)
    send(p, seg, BOX, 9)
    assert mbox.take(seg, cur)
    page, gen = cur.taken & const.PAGE_MASK, cur.taken >> 32
    mbox.put_done(seg, cur, cur.taken)
    send(p, seg, BOX, 1)
    p.set(layout.page_at(p.at, page) + const.PG_WORD, layout.word(const.PAGE_CLAIMED, gen, linker.me))
    unlinker(p, "dies")
    s.actor(lambda: p.kern.pages.link_page(linker, page, gen, BOX), name="linker", slot=linker.my_slot, mortal=False)
    next_through(p, "dies")


# ---- weak memory ------------------------------------------------------------------------------------------------------


def new_in_a_used_page(s: Scenario) -> tuple[Process, Any, Any, int]:
    """The process; one that has a message of the second mailbox in hand, its cursor there, and that mailbox. The first is
    unused, and will begin with the page of that message."""
    p, second = two_boxes(s)
    mover = p.attach()
    send(p, mover, second, 1)
    send(p, mover, second, 2)
    cur = p.parlib.mbox.Cursor(second)
    assert p.parlib.mbox.take(mover, cur)
    return p, mover, cur, second


@case("G1", deaths=1, preemptions=2)
def scavenged_while_its_claimer_links(s: Scenario) -> None:
    """A producer links a page and dies, while another looks for what deaths have left: that page is in the mailbox."""
    p, second = two_boxes(s)
    one, seg = p.attach(), p.attach()
    send(p, one, second, 1)
    send(p, one, second, 2)
    ucq, scavenge = p.kern.ucq, p.kern.pages.scavenge_pages
    s.actor(lambda: s.note("sent", 3, ucq.send_ucq_msg(one, second, p.message(3))), name="dies", slot=one.my_slot)
    s.actor(lambda: scavenge(seg), name="scavenger", slot=seg.my_slot, mortal=False)
    whole_chains(p, {1: second, 2: second, 3: second})


@case("G1", models=("sc", "tso", "ra"), preemptions=2)
def begins_in_a_used_page(s: Scenario) -> None:
    """Two producers begin a mailbox, in a page that was another's: both messages are in it."""
    p, mover, cur, second = new_in_a_used_page(s)
    ucq, mbox = p.kern.ucq, p.parlib.mbox
    one, two = p.attach(), p.attach()
    mbox.put_done(mover, cur, cur.taken)
    ucq.advance_head(mover, second)
    s.actor(lambda: s.note("sent", 3, ucq.send_ucq_msg(one, BOX, p.message(3))), name="one", slot=one.my_slot)
    s.actor(lambda: s.note("sent", 4, ucq.send_ucq_msg(two, BOX, p.message(4))), name="two", slot=two.my_slot)
    whole_chains(p, {3: BOX, 4: BOX})


@case("G2", models=("sc", "tso", "ra"), preemptions=2)
def looked_at_too_early(s: Scenario) -> None:
    """A consumer looks when its mailbox begins, in a page that was another's; told of the message, it finds it."""
    p, mover, cur, second = new_in_a_used_page(s)
    ucq, mbox = p.kern.ucq, p.parlib.mbox
    place, seg, new = cur.taken, p.attach(), mbox.Cursor(BOX)

    def moves() -> None:
        mbox.put_done(mover, cur, place)
        ucq.advance_head(mover, second)
        s.note("sent", 3, ucq.send_ucq_msg(mover, BOX, p.message(3)))
        s.interrupt(60)

    def looks() -> None:
        at = mbox.take(seg, new)
        if at == 0:
            s.rest(60)
            at = mbox.take(seg, new) if mbox.news(seg, new) else 0
        assert at, "G2: message 3 waits, and is not found"
        s.note("got", 3)

    s.actor(moves, name="mover", slot=mover.my_slot)
    s.actor(looks, name="consumer", slot=seg.my_slot)
    whole_chains(p, {3: BOX})
