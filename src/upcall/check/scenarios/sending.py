"""Sending: each delivery flag and the useful combinations against a vcore that sleeps, wakes, works, and sleeps again."""

from __future__ import annotations

from ...kern import const
from ..plan import Scenario
from ..process import USUAL, Process
from .cases import case, variants
from .properties import (
    at_rest,
    bits_handled,
    bounded_duplicates,
    in_order,
    nothing_lost,
    only_by,
    pages_conserved,
    usual,
)

DELIVERED = ("G1", "G2", "G3", "G5", "G10", "G11")
IPI, INDIR, PRIVATE = const.EVENT_IPI, const.EVENT_INDIR, const.EVENT_VCORE_PRIVATE


def one_sends(
    s: Scenario, *, flags: int, vcores: int = 1, own: bool = True, vcore: int = 0, asleep: bool = True
) -> None:
    """A sender against a vcore."""
    p = Process(s, vcores=vcores)
    p.queue(flags, own=own, vcore=vcore)
    p.vcore(vcore, asleep=asleep)
    p.sender("sender", 1)
    if flags & const.EVENT_NOMSG:
        bits_handled(p)
        at_rest(p)
        return
    if flags & const.EVENT_SPAM_PUBLIC:
        nothing_lost(p)
        at_rest(p)
        pages_conserved(p)
        return
    usual(p, private=vcore if flags & PRIVATE else None)
    if flags & PRIVATE:
        only_by(p, vcore)


SINGLE = {
    "usual": {"flags": USUAL},
    "without_ipi": {"flags": INDIR | const.EVENT_FALLBACK},
    "not_throttled": {"flags": USUAL | const.EVENT_NOTHROTTLE},
    "as_a_bit": {"flags": USUAL | const.EVENT_NOMSG},
    "untold": {"flags": 0},
    "to_the_vcore": {"flags": IPI, "own": False},
    "private": {"flags": IPI | PRIVATE, "own": False},
    "private_without_ipi": {"flags": PRIVATE, "own": False},
    "spammed": {"flags": IPI | const.EVENT_SPAM_PUBLIC, "own": False},
    "spammed_bit": {"flags": IPI | const.EVENT_SPAM_PUBLIC | const.EVENT_NOMSG, "own": False},
}
MANY = {
    "usual": {"flags": USUAL},
    "without_ipi": {"flags": INDIR | const.EVENT_FALLBACK},
    "as_a_bit": {"flags": USUAL | const.EVENT_NOMSG},
    "round_robin": {"flags": USUAL | const.EVENT_ROUNDROBIN},
    "must_run": {"flags": USUAL | const.EVENT_VCORE_MUST_RUN},
    "not_throttled": {"flags": USUAL | const.EVENT_NOTHROTTLE},
    "private": {"flags": IPI | PRIVATE, "own": False},
    "private_without_ipi": {"flags": PRIVATE, "own": False},
    "to_the_vcore": {"flags": IPI, "own": False},
    "spammed": {"flags": IPI | const.EVENT_SPAM_PUBLIC, "own": False},
    "spammed_must_run": {"flags": const.EVENT_SPAM_PUBLIC | const.EVENT_VCORE_MUST_RUN, "own": False},
    "to_the_second_vcore": {"flags": USUAL, "vcore": 1},
}
variants(one_sends, DELIVERED, SINGLE)
variants(one_sends, (*DELIVERED, "G8"), {f"many_{name}": {"vcores": 2, **given} for name, given in MANY.items()})
variants(
    one_sends,
    DELIVERED,
    {
        f"awake_{name}": {"asleep": False, **SINGLE[name]}
        for name in ("usual", "as_a_bit", "spammed", "private", "private_without_ipi")
    },
    preemptions=2,
)


@case("G1", "G2", "G5", "G6", "G9", preemptions=2)
def one_sends_twice(s: Scenario) -> None:
    """Two messages of one sender: the second finds the vcore asleep, at work, or on its way back to sleep."""
    p = Process(s)
    p.queue()
    p.vcore(0)
    p.sender("sender", 1, 2)
    usual(p)
    in_order(p, 1, 2)


@case("G1", "G2", "G5", "G6", preemptions=2)
def two_send(s: Scenario) -> None:
    """Two senders against one vcore: they meet at the mailbox, the indirection and the vcore's word."""
    p = Process(s)
    p.queue()
    p.vcore(0)
    p.sender("one", 1)
    p.sender("two", 2)
    usual(p)


@case("G1", "G2", preemptions=1)
def two_set_bits(s: Scenario) -> None:
    """Two senders set the same bit; they coalesce, and neither is lost."""
    p = Process(s)
    p.queue(USUAL | const.EVENT_NOMSG)
    p.vcore(0)
    p.sender("one", 1)
    p.sender("two", 2)
    bits_handled(p)
    at_rest(p)


@case("G9")
def one_indirection_is_enough(s: Scenario) -> None:
    """A second message while the first one's indirection lies there: nobody is told again."""
    p = Process(s, vcores=2)
    p.queue()
    p.vcore(0)
    p.s.bodies[0] = _nothing  # it is asleep, and stays so
    p.sender("sender", 1, 2)
    record = p.kern.layout.slot_record_at(p.at, p.attached - 1)

    @s.at_end
    def told_once(state: object) -> None:
        told = state.get(record + const.AS_INDIRS)  # type: ignore[attr-defined]
        assert told == 1, f"G9: {told} indirections for two messages"


def core_before_its_message(s: Scenario, *, sends: bool = True) -> None:
    """A core is given to a vcore of a process that is WAITING, for a message that comes later, or never.

    The vcore wakes, finds nothing, and goes to sleep, maybe just when it comes; never: it cannot be pickled."""
    p = Process(s, vcores=2)
    p.queue()
    p.vcore(0)
    seg, kern = p.attach(), p.kern

    def submits() -> None:
        if kern.proc.proc_state(seg) == const.P_WAITING:
            kern.proc.startcore(seg, kern.event.fallback_vcore(seg, 0))
        if sends:
            s.note("sent", 1, kern.event.send_event(seg, 0, p.message(1), const.NO_VCORE))

    s.actor(submits, name="sender", slot=seg.my_slot)
    usual(p)


variants(core_before_its_message, DELIVERED, {"usual": {}, "never": {"sends": False}}, preemptions=2)


def _nothing() -> None:
    """An actor that does nothing."""


@case("G1", "G2", "G5", preemptions=2)
def two_vcores_one_sender(s: Scenario) -> None:
    """A sender against two vcores: the one that is told and the one that helps."""
    p = Process(s, vcores=2)
    p.queue()
    p.vcore(0)
    p.vcore(1, asleep=False)
    p.sender("sender", 1)
    usual(p)


@case("G1", "G2", "G6", preemptions=1)
def two_vcores_two_messages(s: Scenario) -> None:
    """Two vcores take one sender's two messages: in order, each once."""
    p = Process(s, vcores=2)
    p.queue()
    p.vcore(0)
    p.vcore(1, asleep=False)
    p.sender("sender", 1, 2)
    usual(p)
    in_order(p, 1, 2)


@case("G7", "G1", preemptions=2)
def private_with_another_awake(s: Scenario) -> None:
    """Mail in vcore 0's private mailbox, and vcore 1 runs: it leaves it alone, and vcore 0 is woken."""
    p = Process(s, vcores=2)
    p.queue(IPI | PRIVATE, own=False)
    p.vcore(0)
    p.vcore(1, asleep=False)
    p.sender("sender", 1)
    usual(p, private=0)
    only_by(p, 0)


@case("G1", "G2", preemptions=2)
def limited_mailbox(s: Scenario) -> None:
    """A mailbox with a limit of one: the second message is refused, or comes after room was made."""
    p = Process(s)
    p.queue(limit=1)
    p.vcore(0)
    p.sender("sender", 1, 2)
    nothing_lost(p)
    bounded_duplicates(p)
    at_rest(p)
