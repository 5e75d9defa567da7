"""The lock for changes of more than one word, and the end of a process."""

from __future__ import annotations

from ...kern import const
from ..plan import Scenario
from ..process import Process
from ..verdict import State
from .cases import case
from .properties import Quiet


def locker(p: Process, name: str, inside: int, tries: int) -> None:
    """An actor that tries so often to get the lock; `inside` is a word that says who is in there."""
    seg, s, d = p.attach(), p.s, p.life.machine.door
    proc, dead = p.kern.proc, p.kern.pages.name_is_dead

    def locks() -> None:
        i = 0
        while i < tries:
            if proc.proc_lock(seg):
                who = d.ld64(seg.mem, inside)
                assert who == 0 or dead(seg, who), f"two hold the lock: {who:x} and {seg.me:x}"
                d.st64(seg.mem, inside, seg.me)
                d.st64(seg.mem, inside, 0)
                proc.proc_unlock(seg)
                s.note("held", name)
            i += 1

    s.actor(locks, name=name, slot=seg.my_slot)


@case("G4", "G11", deaths=1)
def lock_of_the_dead(s: Scenario) -> None:
    """Two change tables, one of them may die: never both at once, and the lock is taken over."""
    p = Process(s)
    inside = p.at.arena  # a word that nobody else uses
    locker(p, "one", inside, 2)
    locker(p, "two", inside, 2)

    @s.at_end
    def free(state: State) -> None:
        owner = state.get(p.at.procinfo + const.PI_LOCK, 4)
        assert owner == 0 or Quiet(p, state).unwell(owner), "the lock is held by one who has left"


@case("G11", deaths=1, preemptions=3)
def lock_of_three(s: Scenario) -> None:
    """Two take the lock over from the same dead owner: one of them gets it."""
    p = Process(s)
    inside = p.at.arena
    locker(p, "one", inside, 1)
    locker(p, "two", inside, 2)
    locker(p, "three", inside, 2)


@case("G1")
def the_end(s: Scenario) -> None:
    """A process ends while somebody sends: the event is found and kept for the next start, or its sender is told."""
    p = Process(s)
    p.queue()
    p.sender("sender", 1)
    seg, d, kern, parlib = p.attach(), p.life.machine.door, p.kern, p.parlib
    mbox = kern.event.queue_mbox(p.at, 0)

    def ends() -> None:
        kern.proc.set_proc_state(seg, const.P_DYING)
        d.mb()
        s.note("kept" if parlib.mbox.waiting_in(seg, mbox, 0) else "removed")

    s.actor(ends, name="owner", slot=seg.my_slot)

    @s.at_end
    def told(state: State) -> None:
        assert not (state.count("sent", 1, const.OK) and state.count("removed")), "G1: sent, and removed"
