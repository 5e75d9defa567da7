"""Mutual exclusion: Dekker's and Peterson's algorithms, and a ticket lock whose holder dies."""

from __future__ import annotations

from ..plan import Scenario, Word
from ..process import DIED
from ..verdict import State
from .known import known


def _critical(s: Scenario, inside: Word) -> None:
    """What only one at a time may do."""
    assert inside.load() == 0, "two are inside"
    inside.store(1)
    inside.store(0)


def dekker(s: Scenario, *, fence: bool = True, looks_first: bool = False) -> None:
    """Dekker: each says that it wants, and looks whether the other does; whose turn it is not, steps back."""
    wants = (s.word("wants 0"), s.word("wants 1"))
    whose, inside = s.word("turn"), s.word("inside")
    s.spins = True

    def side(me: int) -> None:
        mine, other = wants[me], wants[1 - me]
        if looks_first:
            while other.load():
                pass
        mine.store(1)
        if fence:
            s.mb()
        while not looks_first and other.load():
            if whose.load() != me:
                mine.store(0)
                while whose.load() != me:
                    pass
                mine.store(1)
                if fence:
                    s.mb()
        if fence:
            s.mb()
        _critical(s, inside)
        if fence:
            s.mb()
        whose.store(1 - me)
        if fence:
            s.wmb()
        mine.store(0)

    s.actor(lambda: side(0), name="zero")
    s.actor(lambda: side(1), name="one")


def peterson(s: Scenario, *, fence: bool = True, between: str = "mb", order: str = "wants, turn") -> None:
    """Peterson: each says that it wants, leaves the turn to the other, and waits while the other wants and has it."""
    wants = (s.word("wants 0"), s.word("wants 1"))
    whose, inside = s.word("turn"), s.word("inside")
    s.spins = True

    def side(me: int) -> None:
        if order == "wants, turn":
            wants[me].store(1)
            if fence:
                # Not a wmb: C11 lets the turn be overwritten by one who has not seen what was written before it.
                s.mb() if between == "mb" else s.wmb()
            whose.store(1 - me)
        else:
            whose.store(1 - me)
            if fence:
                s.mb()
            wants[me].store(1)
        if fence:
            s.mb()
        while wants[1 - me].load() and whose.load() != me:
            pass
        if fence:
            s.mb()
        _critical(s, inside)
        if fence:
            s.mb()
        wants[me].store(0)

    s.actor(lambda: side(0), name="zero")
    s.actor(lambda: side(1), name="one")


def ticket_lock(s: Scenario, *, repair: str = "") -> None:
    """A ticket lock: who dies with a ticket holds up all behind, unless tickets have names and somebody serves for the dead.

    A ticket is taken by writing one's name on it, so that nobody can die between the two. Who serves for the dead waits
    until it is the dead one's turn; "at once" does not, and lets the next in beside whoever is inside."""
    names = [s.word(f"name on ticket {i}") for i in range(3)]
    served, inside = s.word("served"), s.word("inside")

    def until(ticket: int) -> None:
        now = served.load(acquire=True)
        while now < ticket:
            served.wait(now)
            now = served.load(acquire=True)

    def serve(ticket: int) -> None:
        served.store(ticket, release=True)
        served.wake(3)

    def side(me: int) -> None:
        ticket = 0
        while not names[ticket].cas(0, me):
            ticket += 1
        until(ticket)
        _critical(s, inside)
        serve(ticket + 1)
        s.note("done", me)

    s.actor(lambda: side(1), name="dies", slot=1)
    s.actor(lambda: side(2), name="two", slot=2, mortal=False)
    s.actor(lambda: side(3), name="three", slot=3, mortal=False)

    def serves_for_the_dead() -> None:
        s.rest(DIED)
        ticket = 0
        while ticket < 3:
            if names[ticket].load() == 1:
                if repair != "at once":
                    until(ticket)
                if served.load() <= ticket:
                    inside.store(0)
                    serve(ticket + 1)
                else:
                    served.wake(3)  # it may have died between the number and the wake-up
            ticket += 1

    if repair:
        s.actor(serves_for_the_dead, name="watcher", mortal=False)

    @s.at_end
    def check(state: State) -> None:
        assert state.count("done", 2), "two waits for ever"
        assert state.count("done", 3), "three waits for ever"


known(dekker, "dekker", "classics")
known(dekker, "dekker_without_fences", "classics", ("tso", "ra"), fence=False)
known(dekker, "dekker_looks_first", "classics", ("sc", "tso", "ra"), looks_first=True)
known(peterson, "peterson", "classics")
known(peterson, "peterson_without_fences", "classics", ("tso", "ra"), fence=False)
known(peterson, "peterson_wmb_between", "classics", ("ra",), between="wmb")
known(peterson, "peterson_turn_first", "classics", ("sc", "tso", "ra"), order="turn, wants")
known(ticket_lock, "ticket_lock_of_the_dead", "classics", ("sc", "tso", "ra"), 1)
known(ticket_lock, "ticket_lock_repaired", "classics", (), 1, repair="in turn")
known(ticket_lock, "ticket_lock_repaired_at_once", "classics", ("sc", "tso", "ra"), 1, repair="at once")
