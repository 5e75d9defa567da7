"""Payloads in blocks, and dead letters: messages whose blocks have owners, copied, re-sent, discarded, with deaths on the
way."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import DIED, Process
from ..verdict import State
from .cases import case, variants
from .pages import BOX, LENGTH
from .properties import Quiet, bounded_duplicates

ROOMY = (1, 1, 64, 8, 4, 3, 2)
"""Two spans: room for a payload and its copy."""
HUGE = 2 * const.SPAN_SIZE


SENT = 59
"""An interrupt that nobody waits for: one more moment at which a sender may die."""


def with_payload(p: Process, seg: Any, arg: int, length: int = LENGTH) -> Any:
    """A message whose payload lies in a block of its own, or None if there is none. Only the payload's first word is
    written, and read."""
    msg, arena, d = p.message(arg), p.kern.arena, p.life.machine.door
    msg.length = const.INLINE_MAX + 8  # the block is larger: copies of a payload are short
    msg.block = arena.alloc_block(seg, length)
    if msg.block == 0:
        return None
    d.st64(seg.mem, arena.block_data(seg, msg.block, arena.block_capacity(seg, msg.block)), arg)
    return msg


def sends_payload(
    p: Process, name: str, arg: int, *, mortal: bool = True, some: bool = False, length: int = LENGTH
) -> None:
    """An actor that sends one message with a payload; `some`: as one of many, with the fence that it then owes."""
    seg, s, ucq, d = p.attach(), p.s, p.kern.ucq, p.life.machine.door

    def sends() -> None:
        msg = with_payload(p, seg, arg, length)
        if msg is None:
            return
        if some:
            status = ucq.send_ucq_some(seg, BOX, msg)
            d.mb()
        else:
            status = ucq.send_ucq_msg(seg, BOX, msg)
        s.note("sent", arg, status)
        s.interrupt(SENT)

    s.actor(sends, name=name, slot=seg.my_slot, mortal=mortal)


def takes_payload(p: Process, name: str, takes: int = 2, *, mortal: bool = False) -> None:
    """An actor that takes messages, makes their blocks its own, reads the payload, and is done with both."""
    seg, s, d = p.attach(), p.s, p.life.machine.door
    mbox, arena, dead = p.parlib.mbox, p.kern.arena, p.parlib.dead

    def body() -> None:
        cur = mbox.Cursor(BOX)
        i = 0
        while i < takes:
            at = mbox.take(seg, cur)
            if at != 0:
                arg = d.ld16(seg.mem, at + const.SL_ARG1)
                held = d.ld64(seg.mem, at + const.SL_BLOCK)
                capacity = arena.block_capacity(seg, held)
                assert capacity >= LENGTH, f"G3: message {arg} without its block"
                assert arena.own_block(seg, held), f"G3: the block of message {arg} is not in use"
                found = d.ld64(seg.mem, arena.block_data(seg, held, capacity))
                assert found == arg, f"G3: message {arg} with the payload {found}"
                s.note("got", arg)
                dead.settle_message(seg, BOX, cur.taken)
            i += 1

    s.actor(body, name=name, slot=seg.my_slot, mortal=mortal)


def scavenger(p: Process, of: str, *, name: str = "watcher") -> None:
    """An actor that settles the mailbox and the arena when another has died."""
    seg, s = p.attach(), p.s
    number = s.names.index(of)
    recover, scavenge = p.parlib.mbox.recover_mbox, p.kern.arena.scavenge_arena

    def scavenges() -> None:
        s.rest(DIED + number)
        recover(seg, BOX)
        scavenge(seg)

    s.actor(scavenges, name=name, slot=seg.my_slot, mortal=False)


def blocks_have_messages(p: Process, watcher: str = "") -> None:
    """A block in use is one that a slot holds: READY, or in living hands. Blocks of the dead too, once they are settled."""

    @p.s.at_end
    def check(state: State) -> None:
        quiet = Quiet(p, state)
        if quiet.deaths() and not (watcher and state.ended(state.names.index(watcher))):
            return
        held = []
        for mbox in range(p.at.nr_mboxes):
            for word, at in quiet.slots(mbox):
                if word & 15 in (const.READY, const.TAKEN):
                    held.append(state.get(at + const.SL_BLOCK))
        arena, layout = p.kern.arena, p.kern.layout
        for ref in held:
            word = state.get(layout.span_at(p.at, (ref & 0xFFFFFFFF) - 1))
            assert not ref or word & 15 != const.SPAN_FREE, "G3: a message's block is free"
        for span in range(p.at.nr_spans):
            word = state.get(layout.span_at(p.at, span))
            if word & 15 != const.SPAN_SMALL:
                continue
            for i in range(arena.blocks_in(arena.span_class(word))):
                used = state.get(arena.block_record(p.at, span, i)) & 15 == const.BLOCK_HELD
                ref = arena.reference(span, i)
                assert used == (ref in held), (
                    f"block {i} of span {span} is {'in use' if used else 'free'}, and {held.count(ref)} messages have it"
                )


def payload(s: Scenario, *, some: bool = False, dies: str = "", large: bool = False, fresh: bool = False) -> None:
    """A message with a payload in a block: whole for whoever takes it, and the block is free afterwards."""
    p = Process(s, geometry=(1, 1, 64, 8, 4, 3, 2 if large else 1), fresh=fresh)
    length = HUGE if large else LENGTH
    sends_payload(p, "sender", 1, some=some, mortal=dies == "sender", length=length)
    takes_payload(p, "consumer", mortal=dies == "consumer")
    if dies:
        scavenger(p, dies)
    blocks_have_messages(p, "watcher" if dies else "")
    bounded_duplicates(p)


variants(
    payload,
    ("G1", "G3", "G10"),
    {"usual": {}, "one_of_many": {"some": True}, "in_a_new_segment": {"fresh": True}},
    preemptions=2,
)
variants(
    payload,
    ("G1", "G3", "G4", "G10"),
    {
        "of_a_dead_sender": {"dies": "sender"},
        "in_dead_hands": {"dies": "consumer"},
        "large_of_a_dead_sender": {"dies": "sender", "large": True},
        "large_in_dead_hands": {"dies": "consumer", "large": True},
    },
    deaths=1,
    preemptions=1,
)


# ---- large blocks ----------------------------------------------------------------------------------------------------

LARGE = (1, 1, 64, 8, 2, 3, 3)


def large_user(
    p: Process, name: str, length: int, *, mortal: bool = False, times: int = 1, keeps: bool = False
) -> None:
    """An actor that takes a block, writes to the beginning of each of its spans, and gives it back, or `keeps` it."""
    seg, s, d, arena = p.attach(), p.s, p.life.machine.door, p.kern.arena

    def uses() -> None:
        i = 0
        while i < times:
            ref = arena.alloc_block(seg, length)
            if ref != 0:
                capacity = arena.block_capacity(seg, ref)
                assert capacity >= length, f"G3: a block of {capacity} bytes for {length}"
                at = arena.block_data(seg, ref, capacity)
                n = 0
                while n < length:
                    d.st64(seg.mem, at + n, seg.me)
                    n += const.SPAN_SIZE
                d.mb()
                n = 0
                while n < length:
                    assert d.ld64(seg.mem, at + n) == seg.me, "G10: two have the same memory"
                    n += const.SPAN_SIZE
                if not keeps:
                    arena.free_block(seg, ref)
            i += 1

    s.actor(uses, name=name, slot=seg.my_slot, mortal=mortal)


def spans_given_back(p: Process, watcher: str = "") -> None:
    """When all have come to their end no span is in use."""

    @p.s.at_end
    def check(state: State) -> None:
        dead = any(state.dead(i) for i in range(len(state.names)))
        if watcher and dead and not state.ended(state.names.index(watcher)):
            return
        for span in range(p.at.nr_spans):
            word = state.get(p.kern.layout.span_at(p.at, span)) & 15
            assert word in (const.SPAN_FREE, const.SPAN_SMALL), f"span {span} is left in state {word}"


@case("G10", preemptions=2)
def large_blocks(s: Scenario) -> None:
    """Two take blocks of several spans out of three, another a small one: no memory has two owners, and all comes back."""
    p = Process(s, geometry=LARGE)
    large_user(p, "one", HUGE)
    large_user(p, "two", HUGE)
    large_user(p, "small", LENGTH)
    spans_given_back(p)


@case("G4", "G10", deaths=1, preemptions=1)
def large_block_of_the_dead(s: Scenario) -> None:
    """One dies with a block of several spans, or while it is put together or taken apart: all of it comes back."""
    p = Process(s, geometry=LARGE)
    large_user(p, "dies", HUGE, mortal=True)
    large_user(p, "other", HUGE)
    seg, number, scavenge = p.attach(), s.names.index("dies"), p.kern.arena.scavenge_arena

    def scavenges() -> None:
        s.rest(DIED + number)
        scavenge(seg)
        scavenge(seg)

    s.actor(scavenges, name="watcher", slot=seg.my_slot, mortal=False)
    spans_given_back(p, "watcher")


@case("G4", "G10", deaths=1, preemptions=1)
def large_block_half_given_back(s: Scenario) -> None:
    """One dies giving back a large block, and what is free by then has a new owner: the rest comes back all the same."""
    p = Process(s, geometry=LARGE)
    large_user(p, "dies", HUGE, mortal=True)
    large_user(p, "other", const.SPAN_SIZE, keeps=True)
    seg, number, scavenge = p.attach(), s.names.index("dies"), p.kern.arena.scavenge_arena

    def scavenges() -> None:
        s.rest(DIED + number)
        scavenge(seg)
        scavenge(seg)

    s.actor(scavenges, name="watcher", slot=seg.my_slot, mortal=False)

    @s.at_end
    def nothing_of_the_dead(state: State) -> None:
        if not state.ended(s.names.index("watcher")):
            return
        quiet = Quiet(p, state)
        for span in range(p.at.nr_spans):
            word = state.get(p.kern.layout.span_at(p.at, span))
            assert quiet.unwell(word >> 32) != "dead", f"G4: span {span} is left behind by a dead owner"


@case("G10", preemptions=2)
def span_changes_its_class(s: Scenario) -> None:
    """A span whose blocks are all free is given back, and carved for another class, while somebody takes one."""
    p = Process(s, geometry=(1, 1, 64, 8, 2, 3, 1))
    arena, first = p.kern.arena, p.attach()
    arena.free_block(first, arena.alloc_block(first, LENGTH))
    large_user(p, "one", LENGTH)
    large_user(p, "two", 10_000)
    seg = p.attach()

    def scavenges() -> None:
        arena.scavenge_arena(seg)

    s.actor(scavenges, name="scavenger", slot=seg.my_slot)
    spans_given_back(p)


# ---- dead letters ----------------------------------------------------------------------------------------------------


def letters(p: Process, state: State) -> list[int]:
    """The arguments of the dead letters that wait."""
    quiet = Quiet(p, state)
    box = p.kern.layout.dead_mbox(p.at)
    return [
        state.get(at + const.SL_ARG1, 2) for word, at in quiet.slots(box) if word & 15 in (const.READY, const.TAKEN)
    ]


def letter_is_made(s: Scenario, *, dies: bool = False, payload: bool = False) -> None:
    """A vcore makes a dead letter of a message: there is one, or the message is still there; with its payload."""
    p = Process(s, geometry=ROOMY)
    seg, first, parlib, d = p.attach(), p.attach(), p.parlib, p.life.machine.door
    msg = with_payload(p, first, 1) if payload else p.message(1)
    assert p.kern.ucq.send_ucq_msg(first, BOX, msg) == const.OK
    cur = parlib.mbox.Cursor(BOX)
    assert parlib.mbox.take(seg, cur)
    room = p.kern.layout.Msg()

    def makes() -> None:
        if parlib.dead.post_letter(seg, BOX, p.kern.ucq.slot_at(seg, cur.taken), room) == const.OK:
            parlib.dead.settle_message(seg, BOX, cur.taken)

    s.actor(makes, name="vcore 0", slot=seg.my_slot, mortal=dies)
    reader = p.attach()
    box = p.kern.layout.dead_mbox(p.at)

    def reads() -> None:
        look = parlib.mbox.Cursor(box)
        at = parlib.mbox.take(reader, look)
        if at != 0:
            one, four = d.ld16(reader.mem, at + const.SL_ARG1), d.ld64(reader.mem, at + const.SL_ARG4)
            assert one == four == 1, f"G4: half a letter: {one}, {four}"
            assert d.ld16(reader.mem, at + const.SL_FROM) == BOX + 1, "G4: a letter from nowhere"
            parlib.mbox.put_back(reader, box, look.taken)

    s.actor(reads, name="reader", slot=reader.my_slot, mortal=False)
    if dies:
        scavenger(p, "vcore 0")

    @s.at_end
    def there(state: State) -> None:
        left = [arg for arg, _, mbox in Quiet(p, state).messages(const.READY) if mbox == BOX]
        if dies and state.dead(0) and not state.ended(2):
            return
        assert letters(p, state) or left, "G1: neither the message nor its letter is there"
        assert dies or len(letters(p, state)) == 1, "G4: more than one letter without a death"

    if payload:
        blocks_have_messages(p, "watcher" if dies else "")


variants(letter_is_made, ("G1", "G4"), {"usual": {}, "with_payload": {"payload": True}}, preemptions=2)
variants(
    letter_is_made,
    ("G1", "G4"),
    {"by_one_that_dies": {"dies": True}, "with_payload_by_one_that_dies": {"dies": True, "payload": True}},
    deaths=1,
    preemptions=1,
)


def made_letter(p: Process, arg: int) -> int:
    """A dead letter, made while the scenario is laid out; its place."""
    seg, parlib = p.attach(), p.parlib
    cur = parlib.mbox.Cursor(BOX)
    assert p.kern.ucq.send_ucq_msg(seg, BOX, _of_queue(p, arg)) == const.OK
    at = parlib.mbox.take(seg, cur)
    assert parlib.dead.post_letter(seg, BOX, at, p.kern.layout.Msg()) == const.OK
    parlib.dead.settle_message(seg, BOX, cur.taken)
    return p.get(p.kern.layout.mbox_at(p.at, p.kern.layout.dead_mbox(p.at)) + const.MB_HEAD)


def _of_queue(p: Process, arg: int) -> Any:
    msg = p.message(arg)
    msg.queue = 1
    return msg


def letter_resent(s: Scenario, *, discard: bool = False, dies: bool = False) -> None:
    """Two at one dead letter: it is sent once, or thrown away; twice only if one died with it."""
    p = Process(s, geometry=ROOMY)
    p.queue(0)
    p.set(p.at.procinfo + const.PI_STATE, const.P_WAITING)
    where = made_letter(p, 1)
    layout = p.kern.layout
    for name in ("one", "two"):
        seg = p.attach()
        throws = discard and name == "two"
        s.actor(_resends(p, seg, where, throws), name=name, slot=seg.my_slot, mortal=dies and name == "one")
    if dies:
        watcher = p.attach()
        recover = p.parlib.mbox.recover_mbox

        def settles() -> None:
            s.rest(DIED + 0)
            recover(watcher, layout.dead_mbox(p.at))

        s.actor(settles, name="watcher", slot=watcher.my_slot, mortal=False)

    @s.at_end
    def once(state: State) -> None:
        sent = [arg for arg, _, mbox in Quiet(p, state).messages(const.READY) if mbox == BOX]
        gone = state.count("discarded")
        left = letters(p, state)
        if dies and state.dead(0) and not state.ended(2):
            return
        assert sent or gone or left, "G4: the letter is gone, and was not sent"
        assert len(sent) + gone <= 1 + dies, f"G4: one letter was sent {len(sent)} times"


def _resends(p: Process, seg: Any, where: int, throws: bool) -> Any:
    dead, s, layout = p.parlib.dead, p.s, p.kern.layout

    def body() -> None:
        if throws:
            if dead.discard_letter(seg, where) == const.OK:
                s.note("discarded")
        else:
            s.note("resent", dead.resend_letter(seg, where, layout.Msg()))

    return body


variants(letter_resent, ("G4",), {"usual": {}, "or_discarded": {"discard": True}}, preemptions=2)
variants(letter_resent, ("G4",), {"by_one_that_dies": {"dies": True}}, deaths=1, preemptions=2)
