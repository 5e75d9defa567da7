"""Treiber's stack: nodes that are used again, and the compare-and-swap that does not notice (ABA)."""

from __future__ import annotations

from ..plan import Scenario
from ..verdict import State
from .known import known


def treiber_stack(s: Scenario, *, tags: bool = True) -> None:
    """A stack of nodes, head swung by compare-and-swap: one pops while another pops two and pushes the first again.

    Without tags the slow one's compare-and-swap finds the head it knew, with another node behind it by now."""
    head = s.word("head", 1)
    following = [s.word(f"next of {i}", i + 1 if 0 < i < 3 else 0) for i in range(4)]
    mask = 0xFF

    def swing(old: int, node: int) -> bool:
        return head.cas(old, ((old >> 8) + 1) << 8 | node if tags else node)

    def pop() -> int:
        while True:
            old = head.load(acquire=True)
            node = old & mask
            if node == 0:
                return 0
            after = following[node].load()
            if swing(old, after):
                return node

    def push(node: int) -> None:
        while True:
            old = head.load()
            following[node].store(old & mask)
            if swing(old, node):
                return

    @s.actor
    def slow() -> None:
        s.note("has", pop())

    @s.actor
    def quick() -> None:
        first = pop()
        s.note("has", pop())
        if first:
            push(first)

    @s.at_end
    def check(state: State) -> None:
        held = [node for (node,) in state.noted("has") if node]
        node = head.get(state) & mask
        while node:
            held.append(node)
            node = following[node].get(state)
        assert sorted(held) == [1, 2, 3], f"nodes are {sorted(held)}: one is owned twice, or lost"


known(treiber_stack, "treiber_stack", "classics")
known(treiber_stack, "treiber_stack_without_tags", "classics", ("sc", "tso", "ra"), tags=False)
