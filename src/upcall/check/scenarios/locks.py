"""The lock for changes of more than one word."""

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
