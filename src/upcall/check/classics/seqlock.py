"""A seqlock: readers look at a number before and after, and try again if it has changed."""

from __future__ import annotations

from ..plan import Scenario
from .known import known


def seqlock(s: Scenario, *, write: bool = True, read: bool = True, looks_again: bool = True) -> None:
    """Two words that belong together, a number that is odd while they change: a reader never sees half a change."""
    number, one, two = s.word("number"), s.word("one"), s.word("two")

    @s.actor
    def writer() -> None:
        for value in (1, 2):
            before = number.load()
            number.store(before + 1)
            if write:
                s.wmb()  # odd before the first change
            one.store(value)
            two.store(value)
            if write:
                s.wmb()  # the last change before even
            number.store(before + 2)

    @s.actor
    def reader() -> None:
        before = number.load()
        if before & 1:
            return
        if read:
            s.rmb()  # the number before what it is for
        found = (one.load(), two.load())
        if read:
            s.rmb()  # what it is for before the second look
        if not looks_again or number.load() == before:
            assert found[0] == found[1], f"half a change: {found}"


known(seqlock, "seqlock", "classics")
known(seqlock, "seqlock_without_wmb", "classics", ("ra",), write=False)
known(seqlock, "seqlock_without_rmb", "classics", ("ra",), read=False)
known(seqlock, "seqlock_without_second_look", "classics", ("sc", "tso", "ra"), looks_again=False)
