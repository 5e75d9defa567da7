"""Chase and Lev's deque: its owner pushes and takes at the bottom, others steal at the top."""

from __future__ import annotations

from ..plan import Scenario
from ..verdict import State
from .known import known


def chase_lev(s: Scenario, *, take: bool = True, steal: bool = True, push: bool = True, swaps: bool = True) -> None:
    """Two items: the owner takes both while a thief steals both; each item goes to one of them.

    Fences: in `take` between the bottom that is written and the top that is read, in `steal` between top and bottom, in
    `push` between the item and the bottom that says so. `swaps`: the last item goes to whose compare-and-swap of top
    succeeds."""
    top, bottom = s.word("top"), s.word("bottom")
    items = [s.word(f"item {i}") for i in range(2)]

    @s.actor
    def owner() -> None:
        for i in (0, 1):
            items[i].store(i + 1)
            if push:
                s.wmb()
            bottom.store(i + 1)
        for _ in (0, 1):
            b = bottom.load() - 1
            bottom.store(b)
            if take:
                s.mb()
            t = top.load()
            if t > b:
                bottom.store(b + 1)
                continue
            item = items[b].load()
            if t == b:
                if swaps and not top.cas(t, t + 1):
                    item = 0
                bottom.store(b + 1)
            if item:
                s.note("has", item)

    @s.actor
    def thief() -> None:
        for _ in (0, 1):
            t = top.load()
            if steal:
                s.mb()
            b = bottom.load()
            if t < b:
                s.rmb()
                item = items[t].load()
                if top.cas(t, t + 1):
                    s.note("has", item)

    @s.at_end
    def check(state: State) -> None:
        had = sorted(item for (item,) in state.noted("has"))
        assert had == [1, 2], f"items that somebody has: {had}"


known(chase_lev, "chase_lev", "classics")
known(chase_lev, "chase_lev_take_without_fence", "classics", ("tso", "ra"), take=False)
known(chase_lev, "chase_lev_steal_without_fence", "classics", ("ra",), steal=False)
known(chase_lev, "chase_lev_push_without_fence", "classics", ("ra",), push=False)
known(chase_lev, "chase_lev_last_without_swap", "classics", ("sc", "tso", "ra"), swaps=False)
