"""Deaths: of a sender, a vcore, whoever gives a core, whoever settles a death. Each is noticed (a pidfd wakes the watcher),
and what the dead had in their hands is settled and announced."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import DIED, USUAL, Process
from ..verdict import State
from .cases import case, variants
from .properties import at_rest, bits_handled, no_claims_of_the_dead, nothing_lost, only_by, settled

IPI = const.EVENT_IPI
STARTED = 60
"""Interrupt: a new host starts."""


def restarter(p: Process, vcoreid: int = 0) -> None:
    """A watcher of a vcore that settles its death and starts another host for it."""
    s, kern, parlib = p.s, p.kern, p.parlib
    name = f"vcore {vcoreid}"
    number, dead = s.names.index(name), p.hosts[vcoreid].me
    watcher, seg = p.attach(), p.attach()
    vc = p.recorder(seg, vcoreid)
    vc.note = s.note

    def watches() -> None:
        s.rest(DIED + number)
        kern.proc.unhost_vcore(watcher, vcoreid)
        parlib.recover.recover_vcore(watcher, vcoreid, dead)
        parlib.recover.announce(watcher)
        s.interrupt(STARTED)

    def lives() -> None:
        s.rest(STARTED)
        if not parlib.recover.host_vcore(seg, vcoreid):
            return
        parlib.vcore.disable_notifs(vc)
        parlib.vcore.vcore_entry(vc)
        while True:
            if parlib.vcore.work(vc) == 0 and parlib.vcore.vcore_yield(vc):
                vc.sleep()

    s.actor(watches, name=f"watcher of {name}", slot=watcher.my_slot, mortal=False)
    s.actor(lives, name=f"vcore {vcoreid}, next host", slot=seg.my_slot, mortal=False)
    p.hosts[vcoreid] = seg


def sender_dies(s: Scenario, *, flags: int = USUAL, own: bool = True, vcores: int = 1) -> None:
    """A sender dies at any access: its event is there, whole, or not; nothing of it is left behind."""
    p = Process(s, vcores=vcores)
    p.queue(flags, own=own)
    p.vcore(0, mortal=False)
    p.sender("sender", 1)
    p.supervisor("sender")
    if flags & const.EVENT_NOMSG:
        bits_handled(p)
        at_rest(p)
        no_claims_of_the_dead(p)
    elif flags & const.EVENT_SPAM_PUBLIC:
        nothing_lost(p)
        at_rest(p)
    else:
        settled(p)


SENDING: dict[str, dict[str, Any]] = {
    "usual": {},
    "many": {"vcores": 2},
    "as_a_bit": {"flags": USUAL | const.EVENT_NOMSG},
    "to_the_vcore": {"flags": IPI, "own": False},
    "spammed": {"flags": IPI | const.EVENT_SPAM_PUBLIC, "own": False},
}
variants(sender_dies, ("G1", "G2", "G3", "G4"), SENDING, deaths=1, preemptions=1)


@case("G1", "G2", "G3", deaths=1, preemptions=1)
def sender_dies_beside_another(s: Scenario) -> None:
    """Nobody watches the dead sender: the other one's event is told of all the same, whatever the dead one was doing."""
    p = Process(s, vcores=2)
    p.queue()
    p.vcore(0, mortal=False)
    p.sender("dies", 1)
    p.sender("other", 2, mortal=False)
    nothing_lost(p)
    at_rest(p)


@case("G1", "G3", stops=1, preemptions=1)
def sender_stops_beside_another(s: Scenario) -> None:
    """A sender is stopped for ever at any access: nobody waits for it."""
    p = Process(s)
    p.queue()
    p.vcore(0, mortal=False)
    p.sender("stops", 1)
    p.sender("other", 2, mortal=False)
    nothing_lost(p)
    at_rest(p)


def vcore_dies(s: Scenario, *, flags: int = USUAL, own: bool = True, asleep: bool = False) -> None:
    """A vcore dies at any access, with another beside it: that one does what was in the dead hands."""
    p = Process(s, vcores=2)
    p.queue(flags, own=own)
    p.vcore(0, asleep=asleep)
    p.vcore(1, mortal=False)
    p.sender("sender", 1, mortal=False)
    p.supervisor("vcore 0")
    if flags & const.EVENT_NOMSG:
        bits_handled(p)
        at_rest(p)
        no_claims_of_the_dead(p)
    elif not own and not flags & const.EVENT_SPAM_PUBLIC:
        # What is sent to one vcore after its death waits for its next host.
        nothing_lost(p, private=0)
        no_claims_of_the_dead(p)
        if flags & const.EVENT_VCORE_PRIVATE:
            only_by(p, 0)
    elif flags & const.EVENT_SPAM_PUBLIC:
        nothing_lost(p)
        at_rest(p)
    else:
        settled(p)


DYING: dict[str, dict[str, Any]] = {
    "usual": {},
    "asleep": {"asleep": True},
    "as_a_bit": {"flags": USUAL | const.EVENT_NOMSG},
    "public": {"flags": IPI, "own": False},
    "private": {"flags": IPI | const.EVENT_VCORE_PRIVATE, "own": False},
    "spammed": {"flags": IPI | const.EVENT_SPAM_PUBLIC, "own": False},
}
variants(vcore_dies, ("G1", "G2", "G4", "G7"), DYING, deaths=1, preemptions=1)


@case("G1", "G2", "G4", deaths=1, preemptions=1)
def vcore_is_restarted(s: Scenario) -> None:
    """The only vcore dies at any access: its next host handles what is left."""
    p = Process(s)
    p.queue()
    p.vcore(0)
    p.sender("sender", 1, mortal=False)
    restarter(p)
    settled(p)


@case("G1", "G2", "G7", deaths=1, preemptions=1)
def private_mail_waits_for_the_next_host(s: Scenario) -> None:
    """A vcore dies with private mail: its next host handles it."""
    p = Process(s, vcores=2)
    p.queue(IPI | const.EVENT_VCORE_PRIVATE, own=False)
    p.vcore(0)
    p.sender("sender", 1, mortal=False)
    restarter(p)
    settled(p)
    only_by(p, 0)


@case("G1", "G2", "G4", deaths=2, preemptions=0)
def recoverer_dies(s: Scenario) -> None:
    """Whoever settles a vcore's death dies at any access of that: the next one brings it to its end."""
    p = Process(s, vcores=2)
    p.queue()
    p.vcore(0, asleep=False)
    p.vcore(1, mortal=False)
    assert p.kern.event.send_event(p.attach(), 0, p.message(1), const.NO_VCORE) == const.OK
    dead, number = p.hosts[0].me, s.names.index("vcore 0")
    kern, recover = p.kern, p.parlib.recover
    first, second = p.attach(), p.attach()

    def settles(seg: Any) -> None:
        if kern.pages.name_is_dead(seg, dead):
            kern.proc.unhost_vcore(seg, 0)
            recover.recover_vcore(seg, 0, dead)
            recover.announce(seg)

    def watches() -> None:
        s.rest(DIED + number)
        settles(first)

    s.actor(watches, name="first watcher", slot=first.my_slot)
    after = s.names.index("first watcher")

    def watches_watcher() -> None:
        s.rest(DIED + after)
        settles(second)
        s.rest(DIED + number)  # the vcore may outlive its first watcher
        settles(second)

    s.actor(watches_watcher, name="watcher of first", slot=second.my_slot, mortal=False)

    @s.at_end
    def handled(state: State) -> None:
        assert state.count("got", 1), "G2: an event was sent, vcore 1 sleeps, and nobody will handle it"
