"""Pages that leave the middle of a mailbox's chain, while one stands at its head who does not move: against a producer, a
consumer, another who unlinks, the one at the head when it goes on at last; and deaths and stops on the way."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import DIED, Process
from ..verdict import State
from .cases import case
from .pages import BOX, consumer, producer, whole
from .properties import Quiet

PAGES = 4
TINY = (1, 1, 64, 8, 2, PAGES, 1)
"""Pages of two slots: the first is kept, two are DONE, the last one has a message."""


def stuck(s: Scenario) -> tuple[Process, Any, int]:
    """The process; who stands at the head with a message in hand, and where. Message 1 waits."""
    p = Process(s, geometry=TINY)
    mbox, send = p.parlib.mbox, p.kern.ucq.send_ucq_msg
    still, seg = p.attach(), p.attach()
    for _ in range(2 * PAGES - 2):
        assert send(seg, BOX, p.message(9)) == const.OK
    hand, cur, taken = mbox.Cursor(BOX), mbox.Cursor(BOX), []
    assert mbox.take(still, hand)
    while mbox.take(seg, cur):
        taken.append(cur.taken)
    for where in taken:
        mbox.put_done(seg, cur, where)
    assert send(seg, BOX, p.message(1)) == const.OK
    return p, still, hand.taken


def unlinker(p: Process, name: str, *, mortal: bool = True) -> None:
    """An actor that gives back what is DONE."""
    seg, tidy = p.attach(), p.kern.ucq.tidy_mbox
    p.s.actor(lambda: tidy(seg, BOX), name=name, slot=seg.my_slot, mortal=mortal)


def next_through(p: Process, name: str) -> None:
    """Once the actor of this name has died, somebody settles the mailbox, and looks for pages as who finds the pool empty;
    then only the first page and the last are the mailbox's, and no page is nobody's."""
    s, number, seg = p.s, p.s.names.index(name), p.attach()
    recover, scavenge = p.parlib.mbox.recover_mbox, p.kern.pages.scavenge_pages
    watcher = f"watcher of {name}"

    def scavenges() -> None:
        s.rest(DIED + number)
        recover(seg, BOX)
        scavenge(seg)

    s.actor(scavenges, name=watcher, slot=seg.my_slot, mortal=False)

    @s.at_end
    def given_back(state: State) -> None:
        if state.ended(state.names.index(watcher)):
            quiet = Quiet(p, state)
            linked = set(quiet.chain(BOX))
            for page in range(1, p.at.nr_pages + 1):
                word = state.get(quiet.layout.page_at(p.at, page) + const.PG_WORD)
                assert word & 15 == const.PAGE_FREE or page in linked, f"page {page} is left behind"
            assert len(linked) <= 2, f"pages {linked} are still there"


def done_pages_leave(p: Process) -> None:
    """With nobody dead or stopped, no page in the middle is left that is all DONE."""

    @p.s.at_end
    def check(state: State) -> None:
        quiet = Quiet(p, state)
        if all(state.ended(i) for i in range(len(state.names))):
            assert len(list(quiet.chain(BOX))) <= 2, f"pages {list(quiet.chain(BOX))} are still there"


@case("G1", "G5", "G11")
def two_unlink(s: Scenario) -> None:
    """Two give back neighbouring pages at once: each leaves once, and the chain stays whole."""
    p, _, _ = stuck(s)
    unlinker(p, "one")
    unlinker(p, "two")
    done_pages_leave(p)
    whole(p)


@case("G1", "G5", preemptions=2)
def one_unlinks_and_the_head_passes(s: Scenario) -> None:
    """Who stood at the head goes on, and moves the head over the pages that another takes out and a third one uses again."""
    p, still, where = stuck(s)
    unlinker(p, "unlinker")
    producer(p, "producer", 2, 3)
    mbox, advance = p.parlib.mbox, p.kern.ucq.advance_head

    def goes_on() -> None:
        mbox.put_done(still, mbox.Cursor(BOX), where)
        advance(still, BOX)

    s.actor(goes_on, name="goes on", slot=still.my_slot)
    whole(p)


@case("G1", "G3", "G5", "G6", "G11", preemptions=2)
def one_unlinks_and_the_pages_are_used_again(s: Scenario) -> None:
    """A producer finds the pool empty, takes the pages out itself, and appends them again."""
    p, _, _ = stuck(s)
    unlinker(p, "unlinker")
    producer(p, "producer", 2, 3, 4)
    whole(p)


@case("G1", "G5", preemptions=3)
def one_unlinks_and_a_consumer_walks(s: Scenario) -> None:
    """A consumer comes from the head, over the pages that leave."""
    p, _, _ = stuck(s)
    unlinker(p, "unlinker")
    consumer(p, "consumer", 1)
    whole(p)

    @s.at_end
    def taken(state: State) -> None:
        assert state.count("got", 1) or not all(state.ended(i) for i in range(2)), "G2: message 1 was not found"


@case("G1", "G5", deaths=1, stops=1, preemptions=1)
def unlinkers_die_and_stop(s: Scenario) -> None:
    """One of two dies or stops on the way; the other, or the next one through, finishes it."""
    p, _, _ = stuck(s)
    unlinker(p, "dies")
    unlinker(p, "other")
    next_through(p, "dies")
    whole(p)


@case("G1", "G3", "G5", deaths=1, stops=1, preemptions=1)
def unlinker_dies_and_the_pages_are_used_again(s: Scenario) -> None:
    """One dies or stops on the way; a producer goes on with the pages."""
    p, _, _ = stuck(s)
    unlinker(p, "dies")
    producer(p, "producer", 2, 3, mortal=False)
    whole(p)

    @s.at_end
    def sent(state: State) -> None:
        assert state.count("sent", 3, const.OK) or not state.ended(1), "G11: no room while one does not move"
