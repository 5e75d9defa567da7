"""What somebody owes before it rests: to give back what nobody else will, to tell who sleeps, to do what the vcore's last
host has left undone."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import DIED, USUAL, Process
from ..verdict import State
from .cases import case
from .hosts import comes
from .pages import BOX
from .properties import at_rest, nothing_lost

BIT = const.TYPE_PROGRAM


@case("G11")
def room_in_a_vcores_own_mail(s: Scenario) -> None:
    """A vcore passed over a sender that was slow, and handles its message at last: the page goes to who waits for room."""
    p = Process(s, geometry=(1, 1, 64, 8, 1, 2, 1))
    vc = p.vcore(0, asleep=False)
    slow, other, seg = p.attach(), p.attach(), p.attach()
    ucq, mbox, d, pub = p.kern.ucq, p.parlib.mbox, p.life.machine.door, vc.pub.mbox
    where = ucq.claim_slot(slow, pub)
    assert ucq.send_ucq_msg(other, pub, p.message(2)) == const.OK
    assert mbox.take(vc.s, vc.pub)
    mbox.put_done(vc.s, vc.pub, vc.pub.taken)
    ucq.fill_slot(slow, ucq.slot_at(slow, where), p.message(1))
    d.xchg64(slow.mem, ucq.slot_at(slow, where), p.kern.layout.word(const.READY, where >> 32, slow.me))
    # Counted in, and tried once more, before the message was handled.
    word = ucq.room_word(seg, BOX)
    seen = ucq.want_room(seg, word)
    assert ucq.send_ucq_msg(seg, BOX, p.message(3)) == const.FULL

    def waits() -> None:
        d.futex_wait(seg.mem, word, seen, -1)
        s.note("sent", 3, ucq.send_ucq_msg(seg, BOX, p.message(3)))

    s.actor(waits, name="sender", slot=seg.my_slot)
    at_rest(p)

    @s.at_end
    def sent(state: State) -> None:
        assert not state.ended(1) or state.count("sent", 3, const.OK), "G11: told that there is room, and there is none"


@case("G1", "G2", preemptions=3)
def mail_comes_back_as_a_vcore_goes_to_sleep(s: Scenario) -> None:
    """A vcore's public mail was in dead hands; who settles that makes it READY again while the vcore goes to sleep."""
    p = Process(s, vcores=2)
    vc = p.vcore(0, asleep=False)
    dead, seg = p.gone(), p.attach()
    mbox, recover = p.parlib.mbox, p.parlib.recover
    assert p.kern.ucq.send_ucq_msg(seg, vc.pub.mbox, p.message(1)) == const.OK
    assert mbox.take(dead, mbox.Cursor(vc.pub.mbox))

    def settles() -> None:
        s.note("sent", 1, const.OK)
        recover.recover_vcore(seg, 1, dead.me)
        recover.announce(seg)

    s.actor(settles, name="watcher of vcore 1", slot=seg.my_slot)
    nothing_lost(p)


def left_behind(p: Process) -> int:
    """A vcore's host is dead, with a bit in its hand and its name on the queue, and nobody has settled that. Its name."""
    p.queue(USUAL)
    dead, at = p.gone().me, p.kern.layout
    p.set(at.vcpd_at(p.at, 0) + const.VCPD_HOST, dead)
    box = p.kern.event.queue_mbox(p.at, 0)
    p.set(at.vcpd_at(p.at, 0) + const.VCPD_BIT, p.parlib.recover.bit_in_hand(dead, box, BIT))
    p.set(at.evq_at(p.at, 0) + const.EVQ_ALERT, const.ALERT_POLLED | dead << 32)
    return dead  # type: ignore[no-any-return]


@case("G1", "G2", "G4", preemptions=1)
def next_host_finds_what_is_left(s: Scenario) -> None:
    """The next host comes while somebody sends who relies on the dead one's answer."""
    p = Process(s)
    left_behind(p)
    p.sender("sender", 1)
    comes(p, 0)
    nothing_lost(p)

    @s.at_end
    def handled(state: State) -> None:
        assert state.count("bit", BIT), "G4: a bit that was in dead hands is not handled again"


@case("G1", "G2", "G4", stops=1)
def next_host_stops(s: Scenario) -> None:
    """The next host stops anywhere on its way: the dead one's name is there for a watcher as long as it holds anything."""
    p = Process(s)
    dead = left_behind(p)
    seg, host_vcore = p.attach(), p.parlib.recover.host_vcore

    def hosts() -> None:
        host_vcore(seg, 0)

    s.actor(hosts, name="next", slot=seg.my_slot)
    vcpd, queue = p.kern.layout.vcpd_at(p.at, 0), p.kern.layout.evq_at(p.at, 0)

    @s.always
    def named(state: State) -> None:
        held = (state.get(vcpd + const.VCPD_BIT) >> 32, state.get(queue + const.EVQ_ALERT) >> 32)
        assert dead not in held or state.get(vcpd + const.VCPD_HOST) == dead, (
            "G4: nobody knows of the dead host any more"
        )


@case("G1", "G4", deaths=1, preemptions=1)
def host_comes_and_dies_meanwhile(s: Scenario) -> None:
    """While a host looks at what is left, another comes and dies, and who finds it dead goes no further than to say so."""
    p = Process(s)
    p.queue()
    p.kern.event.set_bit(p.at, p.kern.event.queue_mbox(p.at, 0), BIT)
    first = comes(p, 0, name="first", mortal=True)
    finder = p.attach()
    unhost = p.kern.proc.unhost_vcore

    def finds() -> None:
        s.rest(DIED + 0)
        unhost(finder, 0)

    s.actor(finds, name="watcher of first", slot=finder.my_slot, mortal=False)
    comes(p, 0)
    held = p.kern.layout.vcpd_at(p.at, 0) + const.VCPD_BIT
    alert = p.kern.layout.evq_at(p.at, 0) + const.EVQ_ALERT

    @s.at_end
    def not_in_its_hands(state: State) -> None:
        if state.dead(0) and not state.count("refused", 0):
            assert state.get(held) >> 32 != first.me, "G4: a bit stays in a dead host's hands"
            assert state.get(alert) >> 32 != first.me, "G4: a queue is answered for by a dead host"


@case("G1", "G4", deaths=1)
def late_recoverer_and_the_next_hosts_bit(s: Scenario) -> None:
    """Somebody settles a host's death late: the next host has a bit in hand, and dies with it."""
    p = Process(s)
    left_behind(p)
    late, seg, watcher = p.attach(), p.attach(), p.attach()
    recover, box = p.parlib.recover, p.kern.event.queue_mbox(p.at, 0)
    vcpd = p.kern.layout.vcpd_at(p.at, 0)
    p.set(vcpd + const.VCPD_HOST, seg.me)
    p.kern.event.set_bit(p.at, box, BIT)
    vc = p.recorder(seg, 0)
    vc.note, vc.looks_at = s.note, vcpd + const.VCPD_BIT
    handle_bits, cur = p.parlib.vcore.handle_bits, p.parlib.mbox.Cursor(box)

    def handles() -> None:
        recover.restore_bit(seg, 0)
        handle_bits(vc, cur)

    def restores(own: Any) -> Any:
        def body() -> None:
            recover.restore_bit(own, 0)

        return body

    s.actor(handles, name="vcore 0", slot=seg.my_slot)
    s.actor(restores(late), name="late", slot=late.my_slot, mortal=False)
    restore = restores(watcher)

    def settles() -> None:
        s.rest(DIED + 0)
        restore()

    s.actor(settles, name="watcher", slot=watcher.my_slot, mortal=False)

    @s.at_end
    def there(state: State) -> None:
        if state.dead(0) and not state.count("bit", BIT):
            assert state.get(p.kern.layout.mbox_at(p.at, box) + const.MB_BITMAP), (
                "G1: a bit was in a dead hand, and is gone"
            )
