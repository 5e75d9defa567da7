"""Lists, flags and states that lag behind the vcores' own words, and vcores that go to sleep under a sender's eyes."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import USUAL, Process
from .cases import case, variants
from .properties import delivered, state_is_true, usual

IPI = const.EVENT_IPI


def flag_of_a_sleeper(s: Scenario, *, flags: int, started: bool = False) -> None:
    """A vcore sleeps, with its flag set by a sender that came late, and the process's state says that it runs.

    `started`: another gives it a core meanwhile, and it goes back to sleep."""
    p = Process(s, vcores=2)
    p.queue(flags, own=bool(flags & const.EVENT_INDIR))
    p.vcore(0)
    p.kern.event.set_vcore_msgable(p.attach(), 0)
    p.set(p.at.procinfo + const.PI_STATE, const.P_RUNNING_M)
    p.sender("sender", 1)
    if started:
        seg, startcore = p.attach(), p.kern.proc.startcore
        s.actor(lambda: startcore(seg, 0), name="other", slot=seg.my_slot)
    delivered(p, flags)


variants(
    flag_of_a_sleeper,
    ("G2",),
    {
        "usual": {"flags": USUAL},
        "spammed": {"flags": const.EVENT_SPAM_PUBLIC},
        "must_run": {"flags": const.EVENT_SPAM_PUBLIC | const.EVENT_VCORE_MUST_RUN},
    },
)
variants(
    flag_of_a_sleeper,
    ("G2",),
    {"started_by_another": {"flags": const.EVENT_SPAM_PUBLIC | const.EVENT_VCORE_MUST_RUN, "started": True}},
    preemptions=2,
)


def state_lags(s: Scenario, *, flags: int, own: bool = True) -> None:
    """A single-core process whose vcore sleeps while its state still says that it runs."""
    p = Process(s)
    p.queue(flags, own=own)
    p.vcore(0)
    p.set(p.at.procinfo + const.PI_STATE, const.P_RUNNING_S)
    p.sender("sender", 1)
    usual(p)


variants(state_lags, ("G2",), {"public": {"flags": 0, "own": False}, "untold": {"flags": 0}, "usual": {"flags": USUAL}})


def bulk_preempted(s: Scenario, *, flags: int = USUAL) -> None:
    """A vcore whose core was taken with all others: a sender gives it one."""
    p = Process(s, vcores=2)
    p.queue(flags, own=bool(flags & const.EVENT_INDIR))
    p.vcore(0)
    at = p.kern.layout.map_at(p.at, 0)
    p.set(at, p.get(at) & ~15 | const.VC_BULK)
    p.set(p.at.procinfo + const.PI_STATE, const.P_RUNNABLE_M)
    p.sender("sender", 1)
    delivered(p, flags)


variants(
    bulk_preempted,
    ("G1", "G2"),
    {"usual": {}, "spammed": {"flags": const.EVENT_SPAM_PUBLIC}},
)


def going_to_sleep(s: Scenario, *, flags: int, own: bool, vcores: int = 2) -> None:
    """A vcore that works and goes to sleep, and a message without an interrupt."""
    p = Process(s, vcores=vcores)
    p.queue(flags, own=own)
    p.vcore(0, asleep=False)
    p.sender("sender", 1)
    delivered(p, flags)


SLEEPY: dict[str, dict[str, Any]] = {
    "indirection": {"flags": const.EVENT_INDIR | const.EVENT_FALLBACK, "own": True},
    "must_run": {"flags": const.EVENT_INDIR | const.EVENT_FALLBACK | const.EVENT_VCORE_MUST_RUN, "own": True},
    "spammed": {"flags": const.EVENT_SPAM_PUBLIC, "own": False},
    "spammed_must_run": {"flags": const.EVENT_SPAM_PUBLIC | const.EVENT_VCORE_MUST_RUN, "own": False},
    "alone_public": {"flags": 0, "own": False, "vcores": 1},
    "alone_untold": {"flags": 0, "own": True, "vcores": 1},
    "private": {"flags": const.EVENT_VCORE_PRIVATE, "own": False},
    "public": {"flags": IPI, "own": False},
}
variants(going_to_sleep, ("G1", "G2", "G8"), SLEEPY, preemptions=2)


@case("G2")
def two_go_to_sleep(s: Scenario) -> None:
    """Two vcores go to sleep at once: the process says that it waits only if none runs."""
    p = Process(s, vcores=2)
    p.vcore(0, asleep=False)
    p.vcore(1, asleep=False)
    state_is_true(p)


@case("G2", preemptions=2)
def one_goes_to_sleep_beside_user_code(s: Scenario) -> None:
    """One vcore goes to sleep, the other runs user code: the process does not say that it waits."""
    p = Process(s, vcores=2)
    p.vcore(0, asleep=False, user=True)
    p.vcore(1, asleep=False)
    state_is_true(p)
