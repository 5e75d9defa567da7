"""Vcores that lose their core: to a watcher because they do not move, alone, or all at once. A watcher looks at any time:
it takes the core of one that is well, too."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import USUAL, Process
from ..verdict import State
from .cases import case, variants
from .properties import at_rest, bounded_duplicates, nothing_lost, only_by, pages_conserved, usual

IPI = const.EVENT_IPI


def preempter(p: Process, vcoreid: int = 0, *, name: str = "preempter", mortal: bool = False) -> None:
    """An actor that takes a vcore's core, and what it answers for, at any time."""
    seg = p.attach()
    preempt = p.parlib.recover.preempt_vcore

    def preempts() -> None:
        preempt(seg, vcoreid)

    p.s.actor(preempts, name=name, slot=seg.my_slot, mortal=mortal)


@case("G1", "G2", "G5", preemptions=1)
def taken_over_alone(s: Scenario) -> None:
    """The only vcore loses its core at any time, and comes back."""
    p = Process(s)
    p.queue()
    p.vcore(0, asleep=False)
    p.sender("sender", 1)
    preempter(p)
    usual(p)


def taken_over(s: Scenario, *, flags: int = USUAL, own: bool = True, asleep: bool = False) -> None:
    """A vcore is taken for one that does not move, or is stopped for ever: another does what it answered for."""
    p = Process(s, vcores=2)
    p.queue(flags, own=own)
    p.vcore(0, asleep=asleep)
    p.vcore(1, mortal=False)
    p.sender("sender", 1, mortal=False)
    preempter(p)
    # What is sent to one vcore after it was taken over waits for it, or for the watcher's next look.
    nothing_lost(p, private=None if own else 0)
    bounded_duplicates(p)
    at_rest(p)
    pages_conserved(p)
    if flags & const.EVENT_VCORE_PRIVATE:
        only_by(p, 0)


KINDS: dict[str, dict[str, Any]] = {
    "usual": {},
    "asleep": {"asleep": True},
    "public": {"flags": IPI, "own": False},
    "private": {"flags": IPI | const.EVENT_VCORE_PRIVATE, "own": False},
    "must_run": {"flags": USUAL | const.EVENT_VCORE_MUST_RUN},
}
variants(taken_over, ("G1", "G2", "G4", "G5", "G7", "G8"), KINDS, preemptions=1)
variants(taken_over, ("G1", "G2"), {f"stopped_{k}": v for k, v in KINDS.items()}, stops=1, preemptions=1)


@case("G1", "G2", deaths=1, preemptions=1)
def watcher_dies_taking_over(s: Scenario) -> None:
    """The watcher dies on its way; the next one brings it to its end."""
    p = Process(s, vcores=2)
    p.queue()
    p.vcore(0, asleep=False, mortal=False)
    p.vcore(1, mortal=False)
    p.sender("sender", 1, mortal=False)
    preempter(p, name="first", mortal=True)
    preempter(p, name="second")
    usual(p)


@case("G1", "G2", preemptions=2)
def all_cores_taken(s: Scenario) -> None:
    """All cores at once: they come back together, and what was sent meanwhile is handled."""
    p = Process(s, vcores=2)
    p.queue()
    p.vcore(0, asleep=False)
    p.vcore(1)
    p.sender("sender", 1)
    seg = p.attach()
    proc = p.kern.proc

    def preempts() -> None:
        proc.proc_preempt_all(seg)
        proc.startcore(seg, 0)
        proc.startcore(seg, 1)

    s.actor(preempts, name="preempter", slot=seg.my_slot)
    nothing_lost(p)
    bounded_duplicates(p)
    at_rest(p)


@case("G1", "G2", "G8", preemptions=1)
def one_core_taken(s: Scenario) -> None:
    """One core is taken, and another vcore is told (EV_VCORE_PREEMPT)."""
    p = Process(s, vcores=2)
    p.queue()
    p.vcore(0, asleep=False)
    p.vcore(1)
    p.sender("sender", 1)
    seg = p.attach()
    preempt_core, post = p.kern.proc.proc_preempt_core, p.kern.event.post_vcore_event
    news = p.message(0, const.EV_VCORE_PREEMPT)

    def preempts() -> None:
        if preempt_core(seg, 0):
            post(seg, news, 1, const.EVENT_VCORE_PRIVATE)

    s.actor(preempts, name="preempter", slot=seg.my_slot)
    nothing_lost(p)
    bounded_duplicates(p)
    at_rest(p)


def watcher_goes(s: Scenario, *, asleep: bool = True) -> None:
    """A watcher goes to sleep while a core is given: it is told, or sees it. Else a vcore that stops is not found."""
    p = Process(s)
    p.queue()
    p.vcore(0, asleep=asleep)
    p.sender("sender", 1, mortal=False)
    seg = p.attach()
    sleeps, max_vcores = p.parlib.watch.watch_sleeps, p.at.max_vcores

    def watches() -> None:
        if sleeps(seg):
            s.rest(max_vcores)

    s.actor(watches, name="watcher", slot=seg.my_slot, mortal=False)

    @s.at_end
    def nobody_runs_unwatched(state: State) -> None:
        if not state.ended(state.names.index("watcher")):
            word = state.get(p.kern.layout.map_at(p.at, 0))
            # Nobody relies on one that is only about to be given a core.
            assert word & 15 in (const.VC_OFFLINE, const.VC_STARTING), "G2: a vcore runs, and its watcher sleeps"
            lost = state.count("sent", 1, const.OK) and not state.count("got", 1)
            assert not lost, "G2: an event was sent, its vcore is stopped, and the watcher sleeps"


variants(watcher_goes, ("G2",), {"to_sleep": {}}, stops=1, preemptions=2)
variants(watcher_goes, ("G2",), {"to_sleep_as_a_vcore_does": {"asleep": False}}, stops=1, preemptions=3)
