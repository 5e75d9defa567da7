"""A vcore that sleeps in an event loop's poll: a byte in its FIFO wakes it, and one is enough."""

from __future__ import annotations

from ...kern import const
from ..plan import Scenario
from ..process import USUAL, Process
from ..verdict import State
from .cases import case, variants
from .preempting import preempter
from .properties import at_rest, bits_handled, nothing_lost, settled, usual

IPI = const.EVENT_IPI


def polled(s: Scenario, *, flags: int = USUAL, own: bool = True, vcores: int = 1, asleep: bool = True) -> None:
    """A sender against a vcore that sleeps in a poll, or goes there."""
    p = Process(s, vcores=vcores)
    p.queue(flags, own=own)
    p.vcore(0, asleep=asleep, poll=True)
    p.sender("sender", 1)
    if flags & const.EVENT_NOMSG:
        bits_handled(p)
        at_rest(p)
    elif flags & const.EVENT_SPAM_PUBLIC:
        nothing_lost(p)
        at_rest(p)
    else:
        usual(p)


KINDS = {
    "usual": {"flags": USUAL},
    "without_ipi": {"flags": const.EVENT_INDIR | const.EVENT_FALLBACK},
    "as_a_bit": {"flags": USUAL | const.EVENT_NOMSG},
    "to_the_vcore": {"flags": IPI, "own": False},
    "private": {"flags": IPI | const.EVENT_VCORE_PRIVATE, "own": False},
    "spammed": {"flags": IPI | const.EVENT_SPAM_PUBLIC, "own": False},
    "many": {"flags": USUAL, "vcores": 2},
}
variants(polled, ("G1", "G2", "G5", "G12"), KINDS)
variants(
    polled,
    ("G1", "G2", "G5", "G12"),
    {f"awake_{name}": {"asleep": False, **KINDS[name]} for name in ("usual", "as_a_bit", "private")},
    preemptions=2,
)


@case("G1", "G2", "G5", "G12", preemptions=2)
def polled_by_two(s: Scenario) -> None:
    """Two senders wake one poll: the second relies on the first one's byte only once it is there."""
    p = Process(s)
    p.queue()
    p.vcore(0, poll=True)
    p.sender("one", 1)
    p.sender("two", 2)
    usual(p)


@case("G1", "G2", "G5", "G12", preemptions=2)
def polled_and_woken_otherwise(s: Scenario) -> None:
    """The loop wakes for something of its own while somebody gives it a core."""
    p = Process(s)
    p.queue()
    p.vcore(0, poll=True)
    p.sender("sender", 1)

    def timer() -> None:
        s.interrupt(0)

    s.actor(timer, name="timer", mortal=False)
    usual(p)


@case("G1", "G2", "G3", "G12", deaths=1, preemptions=1)
def waker_of_a_poll_dies(s: Scenario) -> None:
    """A sender dies between giving the core and the byte: the next one writes its own."""
    p = Process(s)
    p.queue()
    p.vcore(0, poll=True, mortal=False)
    p.sender("one", 1)
    p.sender("two", 2, mortal=False)
    p.supervisor("one")
    settled(p)


@case("G1", "G2", "G4", preemptions=1)
def polled_and_taken_over(s: Scenario) -> None:
    """A vcore that polls is taken for one that does not move, and comes back."""
    p = Process(s)
    p.queue()
    p.vcore(0, asleep=False, poll=True)
    p.sender("sender", 1)
    preempter(p)
    usual(p)


@case("G9", "G12")
def one_byte_is_enough(s: Scenario) -> None:
    """Two messages for a loop that has not come to its byte yet: one byte."""
    p = Process(s)
    p.queue()
    p.vcore(0, poll=True)
    p.s.bodies[0] = _nothing  # it is in its poll, and stays there
    p.sender("sender", 1, 2)
    record = p.kern.layout.slot_record_at(p.at, p.attached - 1)

    @s.at_end
    def woken_once(state: State) -> None:
        wakes = state.get(record + const.AS_WAKES)
        assert wakes == 1, f"G9: {wakes} wakes for two messages"


def _nothing() -> None:
    """An actor that does nothing."""
