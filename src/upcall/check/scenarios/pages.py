"""Mailboxes of tiny pages, at the level of slots and pages: turning a page, using it again, and deaths on the way. And the
arena's blocks."""

from __future__ import annotations

from ...kern import const
from ..plan import Scenario
from ..process import DIED, Process
from ..verdict import State
from .cases import case
from .properties import Quiet, bounded_duplicates, in_order, pages_conserved

TINY = (1, 1, 64, 8, 2, 3, 1)
"""As `process.SMALL`, with pages of two slots, three pages, one span."""
BOX = 2


def producer(p: Process, name: str, *args: int, mortal: bool = True) -> None:
    """An actor that appends these messages to the mailbox."""
    seg, s, send = p.attach(), p.s, p.kern.ucq.send_ucq_msg

    def produces() -> None:
        i = 0
        while i < len(args):
            s.note("sent", args[i], send(seg, BOX, p.message(args[i])))
            i += 1

    s.actor(produces, name=name, slot=seg.my_slot, mortal=mortal)


def consumer(p: Process, name: str, takes: int, *, mortal: bool = True) -> None:
    """An actor that tries so often to take a message, handles it, and moves the head."""
    seg, s, d = p.attach(), p.s, p.life.machine.door
    mbox, advance = p.parlib.mbox, p.kern.ucq.advance_head

    def consumes() -> None:
        cur = mbox.Cursor(BOX)
        i = 0
        while i < takes:
            at = mbox.take(seg, cur)
            if at != 0:
                arg = d.ld16(seg.mem, at + const.SL_ARG1)
                again = d.ld64(seg.mem, at + const.SL_ARG4)
                assert arg == again, f"G3: half a message: {arg}, {again}"
                s.note("got", arg)
                mbox.put_done(seg, cur, cur.taken)
            i += 1
        advance(seg, BOX)

    s.actor(consumes, name=name, slot=seg.my_slot, mortal=mortal)


def whole(p: Process) -> None:
    """What was sent was taken, or is still there, in a mailbox whose pages are all accounted for."""
    bounded_duplicates(p)
    pages_conserved(p)

    @p.s.at_end
    def there(state: State) -> None:
        quiet = Quiet(p, state)
        left = {arg for kind in (const.READY, const.TAKEN) for arg, _, _ in quiet.messages(kind)}
        for arg, status in state.noted("sent"):
            assert status != const.OK or arg in left or state.count("got", arg), f"G1: message {arg} is gone"
            assert status == const.OK or not state.count("got", arg), f"G11: message {arg} was refused, and handled"


@case("G1", "G3", "G5", "G6")
def page_turns(s: Scenario) -> None:
    """One producer, one consumer, three messages: the second page is linked, the first one given back."""
    p = Process(s, geometry=TINY)
    producer(p, "producer", 1, 2, 3)
    consumer(p, "consumer", 3)
    whole(p)
    in_order(p, 1, 2, 3)


@case("G1", "G3", "G5", "G6")
def page_turns_in_a_new_segment(s: Scenario) -> None:
    """The same, and neither has touched a page before: each has it backed with memory first."""
    p = Process(s, geometry=TINY, fresh=True)
    producer(p, "producer", 1, 2, 3)
    consumer(p, "consumer", 3)
    whole(p)
    in_order(p, 1, 2, 3)


@case("G1", "G3", "G5", "G11", preemptions=2)
def two_producers_turn_a_page(s: Scenario) -> None:
    """Both link a page: one wins, the other gives its own back."""
    p = Process(s, geometry=TINY)
    producer(p, "one", 1, 2)
    producer(p, "two", 3)
    whole(p)


@case("G1", "G3", "G5", "G11", preemptions=1)
def pages_are_used_again(s: Scenario) -> None:
    """Two pages, a producer that uses them over and over, and one that wakes up with a stale place."""
    p = Process(s, geometry=(1, 1, 64, 8, 2, 2, 1))
    producer(p, "one", 1, 2, 3, 4)
    producer(p, "two", 5)
    consumer(p, "consumer", 4)
    whole(p)


@case("G1", "G5", preemptions=2)
def two_consumers(s: Scenario) -> None:
    """Two consumers take three messages while they are sent: each once."""
    p = Process(s, geometry=TINY)
    producer(p, "producer", 1, 2, 3)
    consumer(p, "one", 2)
    consumer(p, "two", 2)
    whole(p)


@case("G1", "G3", deaths=1, preemptions=1)
def producer_dies_turning_a_page(s: Scenario) -> None:
    """A producer dies between claiming a page and linking it: the scavenger gives it back, or the mailbox has it."""
    p = Process(s, geometry=TINY)
    producer(p, "dies", 1, 2, 3)
    producer(p, "other", 4, mortal=False)
    seg, number = p.attach(), s.names.index("dies")
    recover, scavenge = p.parlib.mbox.recover_mbox, p.kern.pages.scavenge_pages

    def scavenges() -> None:
        s.rest(DIED + number)
        recover(seg, BOX)
        scavenge(seg)

    s.actor(scavenges, name="watcher of dies", slot=seg.my_slot, mortal=False)
    whole(p)

    @s.at_end
    def given_back(state: State) -> None:
        if not state.ended(state.names.index("watcher of dies")):
            return
        quiet = Quiet(p, state)
        linked = set(quiet.chain(BOX))
        for page in range(1, p.at.nr_pages + 1):
            word = state.get(quiet.layout.page_at(p.at, page) + const.PG_WORD)
            assert word & 15 == const.PAGE_FREE or page in linked, f"page {page} is left behind"


# ---- blocks ----------------------------------------------------------------------------------------------------------

OTHER_DONE = 60
"""The interrupt that says so."""
LENGTH = 20_000
"""Two blocks of this length fill a span."""


def user(p: Process, name: str, times: int, *, mortal: bool = True, done: int | None = None) -> None:
    """An actor that takes a block, writes into it, reads what it has written, and gives it back; `done`: an interrupt that
    it raises at its end."""
    seg, s, d, arena = p.attach(), p.s, p.life.machine.door, p.kern.arena

    def uses() -> None:
        i = 0
        while i < times:
            ref = arena.alloc_block(seg, LENGTH)
            if ref != 0:
                at = arena.block_data(seg, ref, arena.block_capacity(seg, ref))
                d.st64(seg.mem, at, seg.me)
                d.mb()
                found = d.ld64(seg.mem, at)
                assert found == seg.me, "G10: two have the same block"
                arena.free_block(seg, ref)
            s.note("used", name, ref != 0)
            i += 1
        if done is not None:
            s.interrupt(done)

    s.actor(uses, name=name, slot=seg.my_slot, mortal=mortal)


def blocks_given_back(p: Process, *watchers: str) -> None:
    """When all who live have come to their end, and the dead are scavenged, no block is held."""

    @p.s.at_end
    def check(state: State) -> None:
        anybody_dead = any(state.dead(i) for i in range(len(state.names)))
        if anybody_dead and not all(state.ended(state.names.index(name)) for name in watchers):
            return
        layout, arena = p.kern.layout, p.kern.arena
        for span in range(p.at.nr_spans):
            word = state.get(layout.span_at(p.at, span))
            assert word & 15 in (const.SPAN_FREE, const.SPAN_SMALL), f"span {span} is left in state {word & 15}"
            if word & 15 == const.SPAN_SMALL:
                for i in range(arena.blocks_in(arena.span_class(word))):
                    held = state.get(arena.block_record(p.at, span, i)) & 15
                    assert held == const.BLOCK_FREE, f"block {i} of span {span} is left behind"


@case("G10", preemptions=3)
def blocks(s: Scenario) -> None:
    """Two take and give back blocks of one span: nobody has another's."""
    p = Process(s, geometry=TINY)
    user(p, "one", 1)
    user(p, "two", 2)
    blocks_given_back(p)


@case("G4", "G10", deaths=1, preemptions=4)
def block_of_the_dead(s: Scenario) -> None:
    """One dies with a block, or while it carves a span: scavengers give it back, and take nobody else's.

    A span that somebody looks into, or gives back, just then is passed over: its block is found by the next scavenger,
    which is whoever finds the arena full."""
    p = Process(s, geometry=TINY)
    user(p, "dies", 1)
    user(p, "other", 1, mortal=False, done=OTHER_DONE)
    seg, number, scavenge = p.attach(), s.names.index("dies"), p.kern.arena.scavenge_arena

    def scavenges() -> None:
        s.rest(DIED + number)
        scavenge(seg)
        s.rest(OTHER_DONE)
        scavenge(seg)

    s.actor(scavenges, name="watcher of dies", slot=seg.my_slot, mortal=False)
    blocks_given_back(p, "watcher of dies")
