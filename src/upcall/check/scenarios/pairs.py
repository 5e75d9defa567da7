"""Two functions that rely on each other's order, and nothing else: each looks for what the other has written."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import Process
from ..verdict import State
from .cases import case, variants
from .pages import BOX, TINY
from .properties import at_rest, usual

IPI = const.EVENT_IPI


def spare(p: Process, number: int = 0) -> int:
    """The offset of a word that nothing else uses."""
    return p.at.arena + 8 * number  # type: ignore[no-any-return]


# ---- bits ------------------------------------------------------------------------------------------------------------


@case("G1", "G5")
def bit_against_its_handler(s: Scenario) -> None:
    """A bit is set twice while it is handled: what was written before the last set is there for a handler to come."""
    p = Process(s, geometry=TINY)
    setter, seg = p.attach(), p.attach()
    d, set_bit, handle_bits = p.life.machine.door, p.kern.event.set_bit, p.parlib.vcore.handle_bits
    what = spare(p)
    vc = p.recorder(seg, 0)
    vc.note, vc.looks_at = s.note, what

    def sets() -> None:
        i = 1
        while i < 3:
            d.st64(setter.mem, what, i)
            set_bit(setter, BOX, const.TYPE_PROGRAM)
            s.note("set", i)
            i += 1

    def handles() -> None:
        handle_bits(vc, p.parlib.mbox.Cursor(BOX))

    s.actor(sets, name="sender", slot=setter.my_slot)
    s.actor(handles, name="handler", slot=seg.my_slot)

    @s.at_end
    def seen(state: State) -> None:
        at = p.kern.layout.mbox_at(p.at, BOX)
        waits = state.get(at + const.MB_BITMAP) and state.get(at + const.MB_CHECK_BITS, 4)
        assert waits or state.count("saw", 2), "G2: a bit was set, its handler has not seen why, and nobody looks again"


def bit_of_two(s: Scenario, *, dies: bool = False) -> None:
    """Two set the same bit while it is handled; one of them may die."""
    p = Process(s, geometry=TINY)
    seg, set_bit, handle_bits = p.attach(), p.kern.event.set_bit, p.parlib.vcore.handle_bits
    vc = p.recorder(seg, 0)
    vc.note = s.note

    def setter(name: str) -> None:
        own = p.attach()

        def sets() -> None:
            set_bit(own, BOX, const.TYPE_PROGRAM)

        s.actor(sets, name=name, slot=own.my_slot, mortal=dies and name == "one")

    setter("one")
    setter("two")

    def handles() -> None:
        handle_bits(vc, p.parlib.mbox.Cursor(BOX))

    s.actor(handles, name="handler", slot=seg.my_slot, mortal=False)

    @s.at_end
    def seen(state: State) -> None:
        at = p.kern.layout.mbox_at(p.at, BOX)
        set_now, check = state.get(at + const.MB_BITMAP), state.get(at + const.MB_CHECK_BITS, 4)
        # One that died may have set it again, without a word, behind its handling: its send has not returned.
        again = dies and state.dead(s.names.index("one")) and state.count("bit", const.TYPE_PROGRAM)
        assert check or not set_now or again, "G2: a bit is set, and nobody will look"
        assert set_now or state.count("bit", const.TYPE_PROGRAM), "G1: a bit is gone, and was not handled"


variants(bit_of_two, ("G1", "G5"), {"against_its_handler": {}})
variants(bit_of_two, ("G1", "G2", "G4"), {"one_of_which_dies": {"dies": True}}, deaths=1)


@case("G1", "G4", deaths=1)
def bit_in_a_dead_hand(s: Scenario) -> None:
    """A vcore dies with a bit in hand: whoever settles its death sets it again, before it forgets who had it."""
    p = Process(s, geometry=TINY)
    seg, set_bit, handle_bits = p.attach(), p.kern.event.set_bit, p.parlib.vcore.handle_bits
    vc = p.recorder(seg, 0)
    vc.note = s.note
    set_bit(seg, BOX, const.TYPE_PROGRAM)

    def handles() -> None:
        handle_bits(vc, p.parlib.mbox.Cursor(BOX))

    s.actor(handles, name="vcore 0", slot=seg.my_slot)
    p.recoverer("first", 0, seg.me, after="vcore 0", mbox=BOX)

    @s.at_end
    def there(state: State) -> None:
        if state.dead(0) and not state.ended(1):
            return
        at = p.kern.layout.mbox_at(p.at, BOX)
        set_now, check = state.get(at + const.MB_BITMAP), state.get(at + const.MB_CHECK_BITS, 4)
        assert set_now or state.count("bit", const.TYPE_PROGRAM), "G1: a bit was in a dead hand, and is gone"
        assert check or not set_now, "G2: a bit is set, and nobody will look"


@case("G1", "G4", deaths=1)
def settler_of_a_bit_dies(s: Scenario) -> None:
    """Whoever sets the bit of a dead vcore again dies on the way: the next one does it."""
    p = Process(s, geometry=TINY)
    dead, recover, vcpd = p.gone().me, p.parlib.recover, p.kern.layout.vcpd_at(p.at, 0)
    p.set(vcpd + const.VCPD_BIT, recover.bit_in_hand(dead, BOX, const.TYPE_PROGRAM))
    p.set(vcpd + const.VCPD_HOST, dead)
    first, second = p.attach(), p.attach()

    def once(seg: Any) -> Any:
        def restores() -> None:
            recover.restore_bit(seg, 0)

        return restores

    s.actor(once(first), name="first", slot=first.my_slot)
    s.actor(once(second), name="second", slot=second.my_slot, mortal=False)

    @s.at_end
    def there(state: State) -> None:
        assert state.get(p.kern.layout.mbox_at(p.at, BOX) + const.MB_BITMAP), "G1: the bit is gone"


def sent_while_it_stops_looking(s: Scenario, *, bit: bool) -> None:
    """A vcore that answered for a queue takes that back and looks once more, while a sender relies on its answer."""
    p = Process(s, geometry=TINY)
    p.queue()
    seg, own = p.attach(), p.attach()
    d, parlib, mbox = p.life.machine.door, p.parlib.vcore, p.parlib.mbox
    vc = p.recorder(own, 0)
    vc.note = s.note
    alert = p.kern.layout.evq_at(p.at, 0) + const.EVQ_ALERT
    # A first message was taken: the mailbox has a page, and the cursor stands behind it.
    assert p.kern.ucq.send_ucq_msg(seg, BOX, p.message(9)) == const.OK
    cur = mbox.Cursor(BOX)
    assert mbox.take(own, cur)
    assert mbox.take(own, cur) == 0
    parlib.poll_queue(vc, 0)
    post = p.kern.event.post_ev_msg

    def sends() -> None:
        post(seg, BOX, p.message(1), const.EVENT_NOMSG if bit else 0)
        if d.ld64(seg.mem, alert) & 15 == const.ALERT_POLLED:
            s.note("relied")

    def stops() -> None:
        parlib.stop_polling(vc, 0)
        d.mb()
        if d.ld32(own.mem, p.kern.layout.mbox_at(p.at, BOX) + const.MB_CHECK_BITS) != 0:
            s.note("seen")
        while mbox.news(own, cur):
            if mbox.take(own, cur):
                s.note("seen")
                break

    s.actor(sends, name="sender", slot=seg.my_slot)
    s.actor(stops, name="vcore 0", slot=own.my_slot)

    @s.at_end
    def seen(state: State) -> None:
        assert not state.count("relied") or state.count("seen"), "G2: a sender relies on a vcore that does not look"


variants(sent_while_it_stops_looking, ("G1", "G2"), {"a_bit": {"bit": True}, "a_message": {"bit": False}})


# ---- a vcore's own mail ----------------------------------------------------------------------------------------------


@case("G1", "G2")
def pending_against_its_handler(s: Scenario) -> None:
    """Mail for a vcore that just looks: it is found, or `notif_pending` says that there is some."""
    p = Process(s)
    seg, own = p.attach(), p.attach()
    post, handle = p.kern.event.post_vc_msg, p.parlib.vcore.handle_events
    vc = p.recorder(own, 0)
    vc.note = s.note
    pending = p.kern.layout.vcpd_at(p.at, 0) + const.VCPD_NOTIF_PENDING
    p.set(p.kern.layout.map_at(p.at, 0), const.VC_ONLINE)
    p.set(pending, 1, 4)

    def posts() -> None:
        s.note("sent", 1, post(seg, 0, 1, p.message(1), 0))

    def handles() -> None:
        handle(vc)

    s.actor(posts, name="sender", slot=seg.my_slot)
    s.actor(handles, name="vcore 0", slot=own.my_slot)

    @s.at_end
    def found(state: State) -> None:
        assert state.count("got", 1) or state.get(pending, 4), "G2: mail, and notif_pending is clear"


def told_directly(s: Scenario, *, flags: int, asleep: bool = False) -> None:
    """Mail to a vcore without a queue, while it works, goes to sleep, or sleeps."""
    p = Process(s, vcores=2)
    p.vcore(0, asleep=asleep)
    seg, post = p.attach(), p.kern.event.post_vcore_event

    def posts() -> None:
        s.note("sent", 1, post(seg, p.message(1), 0, flags))

    s.actor(posts, name="sender", slot=seg.my_slot)
    usual(p)


variants(
    told_directly,
    ("G1", "G2", "G7"),
    {
        "private": {"flags": const.EVENT_VCORE_PRIVATE},
        "public": {"flags": 0},
        "asleep": {"flags": const.EVENT_VCORE_PRIVATE, "asleep": True},
    },
    preemptions=2,
)


@case("G1", "G2")
def told_in_user_code(s: Scenario) -> None:
    """Something is written, then the vcore is notified, as by itself: it is interrupted, or sees it before user code."""
    p = Process(s)
    seg, own = p.attach(), p.attach()
    d, notify = p.life.machine.door, p.kern.proc.proc_notify
    parlib, what = p.parlib.vcore, spare(p)
    vc = p.recorder(own, 0)
    vc.note = s.note
    vcpd = p.kern.layout.vcpd_at(p.at, 0)
    p.set(p.kern.layout.map_at(p.at, 0), const.VC_ONLINE)
    p.set(vcpd + const.VCPD_NOTIF_DISABLED, 1, 4)

    def tells() -> None:
        d.st64(seg.mem, what, 1)
        d.mb()  # as the exchange to READY, or the fence in `tell_room`, in front of every call of `proc_notify`
        notify(seg, 0)

    def lives() -> None:
        while True:
            d.st32(own.mem, vcpd + const.VCPD_NOTIF_PENDING, 0)
            d.mb()
            if d.ld64(own.mem, what) != 0:
                s.note("seen")
                return
            s.interrupt(0)  # one in vcore context is thrown away
            s.rest(0)
            if parlib.enable_notifs(vc):
                s.rest(0)
                parlib.disable_notifs(vc)

    s.actor(tells, name="sender", slot=seg.my_slot)
    s.actor(lives, name="vcore 0", slot=own.my_slot)

    @s.at_end
    def seen(state: State) -> None:
        assert state.count("seen"), "G2: it was told, and goes on in user code"


# ---- waiting for room, and for a drain -------------------------------------------------------------------------------


def waiting_sender(p: Process, name: str, arg: int, *, tries: int = 3) -> None:
    """An actor that sends to the mailbox, and sleeps until there is room: what `Queue.send` does when it blocks."""
    seg, s, d, ucq = p.attach(), p.s, p.life.machine.door, p.kern.ucq

    def sends() -> None:
        i = 0
        while i < tries:
            status = ucq.send_ucq_msg(seg, BOX, p.message(arg))
            if status == const.FULL:
                at = ucq.room_word(seg, BOX)
                seen = ucq.want_room(seg, at)
                status = ucq.send_ucq_msg(seg, BOX, p.message(arg))
                if status == const.FULL:
                    d.futex_wait(seg.mem, at, seen, -1)
                ucq.stop_wanting(seg, at)
            if status != const.FULL:
                s.note("sent", arg, status)
                return
            i += 1

    s.actor(sends, name=name, slot=seg.my_slot)


def taken(p: Process, seg: Any, *args: int) -> Any:
    """Messages sent and taken while the scenario is laid out: a cursor, and the places that are in hand."""
    sender = p.attach()
    for arg in args:
        assert p.kern.ucq.send_ucq_msg(sender, BOX, p.message(arg)) == const.OK
    cur = p.parlib.mbox.Cursor(BOX)
    places = []
    for _ in args:
        assert p.parlib.mbox.take(seg, cur)
        places.append(cur.taken)
    return cur, places


@case("G1", "G11")
def room_in_the_pool(s: Scenario) -> None:
    """A sender that finds no page sleeps while the last message of one is done: it is woken, or has seen the room."""
    p = Process(s, geometry=(1, 1, 64, 8, 1, 2, 1))
    seg = p.attach()
    cur, places = taken(p, seg, 1, 2)
    waiting_sender(p, "sender", 3)
    put_done, advance = p.parlib.mbox.put_done, p.kern.ucq.advance_head

    def finishes() -> None:
        put_done(seg, cur, places[0])
        advance(seg, BOX)

    s.actor(finishes, name="consumer", slot=seg.my_slot)
    at_rest(p)


def room_under_a_limit(s: Scenario, *, stuck: bool = False) -> None:
    """A sender that finds the limit reached sleeps while a handler returns: it is woken, or has seen the room."""
    p = Process(s, geometry=(1, 1, 64, 8, 4, 2, 1))
    p.queue(limit=2)
    seg = p.attach()
    if stuck:
        # The head stays before a claim whose sender does not move.
        assert p.kern.ucq.claim_slot(p.attach(), BOX)
        cur, places = taken(p, seg, 2)
    else:
        cur, places = taken(p, seg, 1, 2)
    waiting_sender(p, "sender", 3)
    put_done = p.parlib.mbox.put_done

    def finishes() -> None:
        put_done(seg, cur, places[0])

    s.actor(finishes, name="consumer", slot=seg.my_slot)
    at_rest(p)


variants(room_under_a_limit, ("G1", "G11"), {"usual": {}, "behind_one_that_does_not_move": {"stuck": True}})


def drained(s: Scenario, *, user: bool = False) -> None:
    """Somebody waits until everything is handled while the last handler returns: it is woken, or has seen it.

    `user`: user code runs next, and the vcore tells nobody once more on its way to sleep."""
    p = Process(s)
    p.queue()
    p.vcore(0, asleep=False, user=user)
    sender, seg, d = p.attach(), p.attach(), p.life.machine.door
    assert p.kern.event.send_event(sender, 0, p.message(1), const.NO_VCORE) == const.OK
    mbox, end = p.parlib.mbox, p.parlib.mbox.mbox_end(seg, p.kern.event.queue_mbox(p.at, 0))
    info = p.at.procinfo

    def drains() -> None:
        d.faa32(seg.mem, info + const.PI_DRAINERS, 1)
        while True:
            seen = d.lda32(seg.mem, info + const.PI_DRAIN_SEQ)
            if not mbox.waiting_in(seg, p.kern.event.queue_mbox(p.at, 0), end):
                break
            d.futex_wait(seg.mem, info + const.PI_DRAIN_SEQ, seen, -1)
        d.faa32(seg.mem, info + const.PI_DRAINERS, 0xFFFFFFFF)

    s.actor(drains, name="drainer", slot=seg.my_slot)
    usual(p)


variants(drained, ("G11",), {"usual": {}, "before_user_code": {"user": True}})


@case("G1", "G4")
def room_for_a_letter(s: Scenario) -> None:
    """A vcore wants room for a dead letter while somebody makes some: it has it, or is told."""
    p = Process(s)
    seg, own = p.attach(), p.attach()
    d, room, what = p.life.machine.door, p.kern.pages.tell_room, spare(p)
    tell = p.kern.proc.tell_holders
    pending = p.kern.layout.vcpd_at(p.at, 0) + const.VCPD_NOTIF_PENDING
    p.set(p.kern.layout.map_at(p.at, 0), const.VC_ONLINE)
    p.set(p.kern.layout.vcpd_at(p.at, 0) + const.VCPD_NOTIF_DISABLED, 1, 4)

    def makes() -> None:
        d.st64(seg.mem, what, 1)
        room(seg)
        tell(seg)

    def wants() -> None:
        d.faa32(own.mem, p.at.procinfo + const.PI_WANT_ROOM, 1)
        s.note("tried", d.ld64(own.mem, what))

    s.actor(makes, name="giver", slot=seg.my_slot)
    s.actor(wants, name="vcore 0", slot=own.my_slot)

    @s.at_end
    def told(state: State) -> None:
        assert state.count("tried", 1) or state.get(pending, 4), "G4: there is room, and who wants it is not told"


@case("G4", deaths=1)
def teller_of_room_dies(s: Scenario) -> None:
    """Whoever tells those that want room dies on the way: the next one tells them."""
    p = Process(s)
    first, second = p.attach(), p.attach()
    tell = p.kern.proc.tell_holders
    pending = p.kern.layout.vcpd_at(p.at, 0) + const.VCPD_NOTIF_PENDING
    p.set(p.kern.layout.map_at(p.at, 0), const.VC_ONLINE)
    p.set(p.kern.layout.vcpd_at(p.at, 0) + const.VCPD_NOTIF_DISABLED, 1, 4)
    p.set(p.at.procinfo + const.PI_WANT_ROOM, 1, 4)

    def teller(seg: Any) -> Any:
        def tells() -> None:
            tell(seg)

        return tells

    s.actor(teller(first), name="first", slot=first.my_slot)
    s.actor(teller(second), name="second", slot=second.my_slot, mortal=False)

    @s.at_end
    def told(state: State) -> None:
        assert state.get(pending, 4), "G4: there is room, and who wants it is not told"
