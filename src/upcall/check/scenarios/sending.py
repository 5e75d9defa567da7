"""Sends against vcores that sleep, wake, work and yield."""

from __future__ import annotations

from ..plan import Scenario
from ..process import Process
from ..verdict import State
from . import Own, own


def all_handled(state: State) -> None:
    """G1, G2: each event whose send has returned has been handled."""
    for arg, status in state.noted("sent"):
        assert status or state.count("got", arg), f"G1: event {arg} was sent and is not handled"


@own(Own("G1 G2 G3 G5"))
def send_to_sleeper(s: Scenario) -> None:
    """One sender, one event, one vcore that sleeps: a single-core process."""
    p = Process(s)
    p.queue()
    p.vcore(0)
    p.sender("sender", 1)
    s.at_end(all_handled)


@own(Own("G1 G2 G3 G5"))
def send_to_many_core(s: Scenario) -> None:
    """One sender, two vcores that sleep: a many-core process."""
    p = Process(s, vcores=2)
    p.queue()
    p.vcore(0)
    p.vcore(1)
    p.sender("sender", 1)
    s.at_end(all_handled)


@own(Own("G1 G2 G3 G5 G6", preemptions=1))
def two_senders(s: Scenario) -> None:
    """Two senders, one vcore."""
    p = Process(s)
    p.queue()
    p.vcore(0)
    p.sender("sender 1", 1)
    p.sender("sender 2", 2)
    s.at_end(all_handled)
