"""Vcore context left for user code: notifications on, and only the interrupt brings the vcore back."""

from __future__ import annotations

from ...kern import const
from ..plan import Scenario
from ..process import USUAL, Process
from .cases import case, variants
from .properties import at_rest, bits_handled, nothing_lost, usual

IPI = const.EVENT_IPI


def user_code(s: Scenario, *, flags: int, own: bool = True, vcores: int = 1) -> None:
    """A sender against a vcore that runs user code: what comes while it leaves vcore context interrupts it."""
    p = Process(s, vcores=vcores)
    p.queue(flags, own=own)
    p.vcore(0, asleep=False, user=True)
    p.sender("sender", 1)
    if flags & const.EVENT_NOMSG:
        bits_handled(p)
        at_rest(p)
    elif flags & const.EVENT_SPAM_PUBLIC:
        nothing_lost(p)
        at_rest(p)
    else:
        usual(p)


variants(
    user_code,
    ("G1", "G2", "G5"),
    {
        "usual": {"flags": USUAL},
        "as_a_bit": {"flags": USUAL | const.EVENT_NOMSG},
        "to_the_vcore": {"flags": IPI, "own": False},
        "private": {"flags": IPI | const.EVENT_VCORE_PRIVATE, "own": False},
        "spammed": {"flags": IPI | const.EVENT_SPAM_PUBLIC, "own": False},
        "many": {"flags": USUAL, "vcores": 2},
    },
    preemptions=3,
)


@case("G1", "G2", "G5", preemptions=2)
def user_code_twice(s: Scenario) -> None:
    """The second message comes while the vcore is on its way back to user code."""
    p = Process(s)
    p.queue()
    p.vcore(0, asleep=False, user=True)
    p.sender("sender", 1, 2)
    usual(p)
