"""Litmus tests: the smallest programs that tell memory models apart, each with and without what forbids its outcome.

Each is broken under a model if the outcome that it names can be seen there.
"""

from __future__ import annotations

from ..plan import Scenario, Word
from ..verdict import State
from .known import known

WEAK = ("ra",)
BUFFERED = ("tso", "ra")


def _fence(s: Scenario, kind: str) -> None:
    if kind == "mb":
        s.mb()
    elif kind == "wmb":
        s.wmb()
    elif kind == "rmb":
        s.rmb()


def _never(s: Scenario, **seen: int) -> None:
    """The outcome in which each of these was noted with this value is not seen."""

    def check(state: State) -> None:
        outcome = " ".join(f"{name}={value}" for name, value in seen.items())
        assert not all(state.count(name, value) for name, value in seen.items()), f"seen: {outcome}"

    s.at_end(check)


def store_buffering(s: Scenario, *, fence: str = "", exchange: bool = False) -> None:
    """SB: each stores, then reads the other's word: neither sees the other's store."""
    x, y = s.word("x"), s.word("y")

    def side(name: str, mine: Word, other: Word) -> None:
        if exchange:
            mine.exchange(1)
        else:
            mine.store(1)
        _fence(s, fence)
        s.note(name, other.load())

    s.actor(lambda: side("one", x, y), name="one")
    s.actor(lambda: side("two", y, x), name="two")
    _never(s, one=0, two=0)


def message_passing(s: Scenario, *, write: str = "", read: str = "", release: bool = False) -> None:
    """MP: data, then a flag: who sees the flag misses the data."""
    data, flag = s.word("data"), s.word("flag")

    @s.actor
    def writer() -> None:
        data.store(1)
        _fence(s, write)
        flag.store(1, release=release)

    @s.actor
    def reader() -> None:
        seen = flag.load(acquire=release)
        _fence(s, read)
        found = data.load()
        s.note("flag", seen)
        s.note("data", found)

    _never(s, flag=1, data=0)


def load_buffering(s: Scenario, *, fence: str = "") -> None:
    """LB: each reads, then stores to the other's word: both see a store that comes after their read."""
    x, y = s.word("x"), s.word("y")

    def side(name: str, mine: Word, other: Word) -> None:
        seen = mine.load()
        _fence(s, fence)
        other.store(1)
        s.note(name, seen)

    s.actor(lambda: side("one", x, y), name="one")
    s.actor(lambda: side("two", y, x), name="two")
    _never(s, one=1, two=1)


def independent_reads(s: Scenario, *, fence: str = "", acquire: bool = False) -> None:
    """IRIW: two write, two read: the readers see the writes in different orders."""
    x, y = s.word("x"), s.word("y")
    s.actor(lambda: x.store(1, release=acquire), name="writes x")
    s.actor(lambda: y.store(1, release=acquire), name="writes y")

    def reads(name: str, first: Word, then: Word) -> None:
        one = first.load(acquire=acquire)
        _fence(s, fence)
        two = then.load(acquire=acquire)
        s.note(f"{name}_first", one)
        s.note(f"{name}_then", two)

    s.actor(lambda: reads("a", x, y), name="reads x, y")
    s.actor(lambda: reads("b", y, x), name="reads y, x")
    _never(s, a_first=1, a_then=0, b_first=1, b_then=0)


def two_writes_each(s: Scenario, *, fence: str = "") -> None:
    """2+2W: each writes both words, in opposite orders: of both words the earlier store of its writer is what remains."""
    x, y = s.word("x"), s.word("y")

    def writes(first: Word, then: Word) -> None:
        first.store(1)
        _fence(s, fence)
        then.store(2)

    s.actor(lambda: writes(x, y), name="one")
    s.actor(lambda: writes(y, x), name="two")

    @s.at_end
    def check(state: State) -> None:
        assert (x.get(state), y.get(state)) != (1, 1), "seen: x=1 y=1"


def coherence(s: Scenario, *, fence: str = "") -> None:
    """CoRR: who has read a store does not read an earlier one of the same word after it."""
    x = s.word("x")
    s.actor(lambda: x.store(1), name="writer")

    @s.actor
    def reader() -> None:
        one = x.load()
        _fence(s, fence)
        two = x.load()
        s.note("first", one)
        s.note("then", two)

    _never(s, first=1, then=0)


known(store_buffering, "sb", "litmus", BUFFERED)
known(store_buffering, "sb_wmb", "litmus", BUFFERED, fence="wmb")
known(store_buffering, "sb_mb", "litmus", fence="mb")
known(store_buffering, "sb_exchange", "litmus", exchange=True)
known(message_passing, "mp", "litmus", WEAK)
known(message_passing, "mp_wmb", "litmus", WEAK, write="wmb")
known(message_passing, "mp_rmb", "litmus", WEAK, read="rmb")
known(message_passing, "mp_wmb_rmb", "litmus", write="wmb", read="rmb")
known(message_passing, "mp_release_acquire", "litmus", release=True)
known(load_buffering, "lb", "litmus")
known(load_buffering, "lb_mb", "litmus", fence="mb")
known(independent_reads, "iriw", "litmus", WEAK)
known(independent_reads, "iriw_rmb", "litmus", WEAK, fence="rmb")
known(independent_reads, "iriw_acquire", "litmus", WEAK, acquire=True)
known(independent_reads, "iriw_mb", "litmus", fence="mb")
known(two_writes_each, "2_2w", "litmus")
known(two_writes_each, "2_2w_wmb", "litmus", fence="wmb")
known(coherence, "corr", "litmus")
known(coherence, "corr_rmb", "litmus", fence="rmb")
