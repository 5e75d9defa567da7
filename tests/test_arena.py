"""The payload arena: blocks have one owner, come back after use and after deaths, and never while a slot holds them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from protocol import Bench, StepLife
from upcall.kern import const

SPAN = const.SPAN_SIZE


@pytest.fixture
def bench(life: Any) -> Bench:
    return Bench(life)


def send(bench: Bench, seg: Any, length: int, mbox: int = 0) -> int:
    """A message with a block of `length` bytes; the block's reference, or 0."""
    block = bench.arena.alloc_block(seg, length)
    if block and bench.ucq.send_ucq_msg(seg, mbox, bench.message(length=length, block=block)) != const.OK:
        bench.arena.free_block(seg, block)
        return 0
    return int(block)


def receive(bench: Bench, seg: Any, mbox: int = 0) -> list[int]:
    """Takes all messages as a consumer does: own the block, DONE, free the block. The references."""
    cur, found = bench.mbox.Cursor(mbox), []
    while at := bench.mbox.take(seg, cur):
        block = bench.get(at + const.SL_BLOCK)
        assert bench.arena.own_block(seg, block)
        bench.mbox.put_done(seg, cur, cur.taken)
        bench.arena.free_block(seg, block)
        found.append(block)
    return found


@pytest.mark.parametrize(
    ("length", "capacity"),
    [(1, 512), (512, 512), (513, 1024), (32768, 32768), (32769, SPAN), (SPAN, SPAN), (SPAN + 1, 2 * SPAN)],
)
def test_block_is_large_enough_and_no_larger(bench: Bench, length: int, capacity: int) -> None:
    block = bench.arena.alloc_block(bench.actor(), length)
    assert bench.arena.block_capacity(bench.at, block) == capacity


def test_small_blocks_do_not_overlap(bench: Bench) -> None:
    seg = bench.actor()
    blocks = [bench.arena.alloc_block(seg, 20000) for _ in range(4)] + [bench.arena.alloc_block(seg, 512)]
    ranges = sorted((bench.arena.block_data(seg, b, c), c) for b in blocks if (c := bench.arena.block_capacity(seg, b)))
    assert len(ranges) == 5
    assert all(at + size <= after for (at, size), (after, _) in pairwise(ranges))
    assert ranges[0][0] >= bench.at.arena
    assert sum(ranges[-1]) <= bench.at.size


def test_every_block_of_the_arena_can_be_given(bench: Bench) -> None:
    seg = bench.actor()
    blocks = {bench.arena.alloc_block(seg, 512) for _ in range(8 * 128)}
    assert len(blocks) == 8 * 128
    assert 0 not in blocks
    assert bench.arena.alloc_block(seg, 512) == 0


def test_large_block_takes_a_run_of_spans(bench: Bench) -> None:
    seg = bench.actor()
    block = bench.arena.alloc_block(seg, 8 * SPAN)
    assert bench.arena.block_data(seg, block, 8 * SPAN) == bench.at.arena
    assert bench.arena.alloc_block(seg, 1) == 0


def test_larger_than_the_arena_is_refused(bench: Bench) -> None:
    seg = bench.actor()
    assert bench.arena.alloc_block(seg, 8 * SPAN + 1) == 0
    assert bench.arena.alloc_block(seg, 2**32 - 1) == 0
    assert bench.blocks_in_use() == 0


def test_large_block_skips_what_is_in_use(bench: Bench) -> None:
    seg = bench.actor()
    bench.arena.alloc_block(seg, 512)
    block = bench.arena.alloc_block(seg, 3 * SPAN)
    assert bench.arena.block_data(seg, block, 3 * SPAN) == bench.at.arena + SPAN


@pytest.mark.parametrize("length", [1, 5000, 40000, 3 * SPAN])
def test_block_given_back_is_free(bench: Bench, length: int) -> None:
    seg = bench.actor()
    bench.arena.free_block(seg, bench.arena.alloc_block(seg, length))
    assert bench.blocks_in_use() == 0


def test_block_of_another_is_not_freed(bench: Bench) -> None:
    block = bench.arena.alloc_block(bench.actor(), 3 * SPAN)
    small = bench.arena.alloc_block(bench.actor(), 100)
    bench.arena.free_block(bench.actor(), block)
    bench.arena.free_block(bench.actor(), small)
    assert bench.blocks_in_use() == 4


def test_empty_small_span_serves_another_class_when_it_is_needed(bench: Bench) -> None:
    seg = bench.actor()
    small = [bench.arena.alloc_block(seg, 512) for _ in range(8 * 128)]
    for block in small:
        bench.arena.free_block(seg, block)
    assert bench.arena.alloc_block(seg, 8 * SPAN) != 0


def large_arena(life: Any, *, spans: int) -> tuple[Bench, Any, list[int]]:
    """An arena of 64 spans, of which so many are full of the largest small blocks, two in each."""
    bench = Bench(life, geometry=(4, 4, 64, 8, 4, 16, 64))
    seg = bench.actor()
    blocks = [bench.arena.alloc_block(seg, 20000) for _ in range(2 * spans)]
    assert spans_real(bench) == spans
    return bench, seg, blocks


def spans_real(bench: Bench) -> int:
    return bench.get(bench.at.procinfo + const.PI_SPANS_REAL)


def test_arena_grows_only_when_no_block_is_free(life: Any) -> None:
    """Once it grew by as many spans as were full, in each round of filling and draining."""
    bench, seg, blocks = large_arena(life, spans=40)
    for _ in range(3):
        for block in blocks:
            bench.arena.free_block(seg, block)
        blocks = [bench.arena.alloc_block(seg, 20000) for _ in blocks]
        assert len(set(blocks)) == len(blocks)
        assert 0 not in blocks
    assert spans_real(bench) == 40


def test_senders_take_where_a_consumer_gave_back_last(life: Any) -> None:
    bench, sender, blocks = large_arena(life, spans=40)
    consumer, another = bench.actor(), bench.actor()
    for n, who in ((60, sender), (30, another), (70, sender)):
        assert bench.arena.own_block(consumer, blocks[n])
        bench.arena.free_block(consumer, blocks[n])
        assert bench.arena.alloc_block(who, 20000) == blocks[n]


def test_free_block_among_full_spans_is_found_within_a_few_looks(life: Any) -> None:
    bench, seg, blocks = large_arena(life, spans=40)
    for n in (40, 70):  # the hint says only where the last one is
        bench.arena.free_block(seg, blocks[n])
    after = [bench.arena.alloc_block(seg, 20000) for _ in range(2 + 2 * (40 // const.SPANS_TRIED + 1))]
    assert {blocks[40], blocks[70]} < set(after)


def test_span_of_a_large_block_serves_small_ones_before_the_arena_grows(life: Any) -> None:
    bench, seg, _ = large_arena(life, spans=4)
    bench.arena.free_block(seg, bench.arena.alloc_block(seg, 3 * SPAN))
    assert spans_real(bench) == 7
    for _ in range(6):
        assert bench.arena.alloc_block(seg, 20000) != 0
    assert spans_real(bench) == 7


@pytest.mark.parametrize("hint", [0, 1, 2, 3, 4, 8, 9, 2**32, 2**64 - 1])
def test_hint_where_a_block_was_given_back_may_say_anything(bench: Bench, hint: int) -> None:
    """Full, of another class, large, free, or no span at all."""
    seg = bench.actor()
    taken = [bench.arena.alloc_block(seg, length) for length in (20000, 20000, 512, 2 * SPAN)]
    for c in range(const.SMALL_CLASSES):
        bench.set(bench.at.procinfo + const.PI_SPANS_FREED + 8 * c, hint)
    block = bench.arena.alloc_block(bench.actor(), 20000)
    assert bench.arena.block_capacity(seg, block) == 32768
    assert block not in taken


@pytest.mark.parametrize(
    "ref", [0, 9, 2**32 - 1, 1 | (128 << 32), 1 | (254 << 32), 1 | (255 << 32), 2 | (0 << 32), 2**64 - 1, 1 << 32]
)
def test_reference_to_no_block_has_no_capacity(bench: Bench, ref: int) -> None:
    """Span 0 is carved into 128 blocks, span 1 is free, and there is no span 8."""
    bench.arena.alloc_block(bench.actor(), 512)
    assert bench.arena.block_capacity(bench.at, ref) == 0


@pytest.mark.parametrize("scavenger", ["alive", "dead"])
def test_block_of_a_span_that_is_looked_at_stays_its_owners(bench: Bench, scavenger: str) -> None:
    """`uncarve` marks the span before it looks at the blocks: meanwhile they are read and given back, and if it dies then
    the span stays carved."""
    owner, other, third = bench.actor(), bench.actor(), bench.actor()
    block, held = bench.arena.alloc_block(owner, 600), bench.arena.alloc_block(owner, 600)
    at = bench.layout.span_at(bench.at, (block & 0xFFFFFFFF) - 1)
    kind = bench.get(at) >> 4 & 15
    bench.set(at, const.SPAN_LEAVING | kind << 4 | 7 << 8 | other.me << 32)
    assert bench.arena.block_capacity(owner, block) == 1024
    assert bench.arena.return_block(owner, block)
    if scavenger == "dead":
        bench.kill(other)
    bench.arena.scavenge_arena(third)
    assert bench.get(at) & 15 == (const.SPAN_SMALL if scavenger == "dead" else const.SPAN_LEAVING)
    assert bench.arena.block_capacity(owner, held) == 1024
    assert bench.arena.return_block(owner, held)


def test_large_block_that_claims_more_spans_than_there_are_has_no_capacity(bench: Bench) -> None:
    seg = bench.actor()
    block = bench.arena.alloc_block(seg, 2 * SPAN)
    for count in (0, 9, 2**63, 2**64 - 1):
        bench.set(bench.layout.span_at(bench.at, 0) + const.SP_COUNT, count)
        assert bench.arena.block_capacity(seg, block) == 0


def test_span_of_an_impossible_class_has_no_capacity(bench: Bench) -> None:
    seg = bench.actor()
    block = bench.arena.alloc_block(seg, 512)
    for c in range(const.SMALL_CLASSES, 16):
        bench.set(bench.layout.span_at(bench.at, 0), const.SPAN_SMALL | (c << 4) | (1 << 8))
        assert bench.arena.block_capacity(seg, block) == 0


def test_file_system_without_room_gives_no_block(lives: Any) -> None:
    bench = Bench(lives("interpreted"))
    bench.world.real_limit = bench.at.arena + 2 * SPAN
    seg = bench.actor()
    assert bench.arena.alloc_block(seg, 3 * SPAN) == 0
    assert bench.arena.alloc_block(seg, 2 * SPAN) != 0
    assert bench.arena.alloc_block(seg, 1) == 0


# ---- left by the dead ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [512, 3 * SPAN])
def test_block_of_a_living_owner_stays(bench: Bench, length: int) -> None:
    bench.arena.alloc_block(bench.actor(), length)
    assert bench.arena.scavenge_arena(bench.actor()) == 0


@pytest.mark.parametrize("length", [512, 3 * SPAN])
def test_block_of_a_dead_owner_comes_back(bench: Bench, length: int) -> None:
    seg, other = bench.actor(), bench.actor()
    bench.arena.alloc_block(seg, length)
    bench.kill(seg)
    assert bench.arena.scavenge_arena(other) > 0
    assert bench.blocks_in_use() == 0


@pytest.mark.parametrize("length", [512, 3 * SPAN])
def test_block_of_a_dead_sender_stays_while_its_message_waits(bench: Bench, length: int) -> None:
    seg, other = bench.actor(), bench.actor()
    block = send(bench, seg, length)
    bench.kill(seg)
    bench.arena.scavenge_arena(other)
    assert bench.arena.block_capacity(other, block) >= length
    assert receive(bench, other) == [block]
    assert bench.blocks_in_use() == 0


@pytest.mark.parametrize("length", [512, 3 * SPAN])
def test_block_of_a_dead_consumer_stays_with_its_message(bench: Bench, length: int) -> None:
    sender, consumer, other = bench.actor(), bench.actor(), bench.actor()
    block = send(bench, sender, length)
    cur = bench.mbox.Cursor(0)
    assert bench.mbox.take(consumer, cur)
    assert bench.arena.own_block(consumer, block)
    bench.kill(consumer)
    bench.arena.scavenge_arena(other)
    assert bench.mbox.recover_mbox(other, 0) == 1
    bench.arena.scavenge_arena(other)
    assert receive(bench, other) == [block]
    assert bench.blocks_in_use() == 0


def test_block_of_a_consumer_that_died_after_done_comes_back(bench: Bench) -> None:
    sender, consumer, other = bench.actor(), bench.actor(), bench.actor()
    block = send(bench, sender, 600)
    cur = bench.mbox.Cursor(0)
    bench.mbox.take(consumer, cur)
    bench.arena.own_block(consumer, block)
    bench.mbox.put_done(consumer, cur, cur.taken)
    bench.kill(consumer)
    assert bench.arena.scavenge_arena(other) > 0
    assert bench.blocks_in_use() == 0


def test_full_arena_looks_for_blocks_of_the_dead(bench: Bench) -> None:
    seg, other = bench.actor(), bench.actor()
    bench.arena.alloc_block(seg, 8 * SPAN)
    bench.kill(seg)
    assert bench.arena.alloc_block(other, 600) != 0


def test_freed_block_tells_those_who_wait(bench: Bench) -> None:
    seg = bench.actor()
    block = bench.arena.alloc_block(seg, 600)
    bench.set(bench.at.procinfo + const.PI_POOL_WAITERS, 1, 4)
    bench.arena.free_block(seg, block)
    assert bench.get(bench.at.procinfo + const.PI_POOL_ROOM, 4) == 1


# ---- at every step ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [600, 2 * SPAN])
def test_sender_may_die_at_any_access(step_life: StepLife, length: int) -> None:
    """The message is there with its block, or neither is; and no block is lost."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, other = bench.actor(), bench.actor()
        died = step_life.dies(n, lambda bench=bench, seg=seg: send(bench, seg, length))
        bench.kill(seg)
        bench.arena.scavenge_arena(other)
        bench.mbox.recover_mbox(other, 0)
        got = receive(bench, other)
        bench.arena.scavenge_arena(other)
        bench.arena.scavenge_arena(other)
        assert len(got) in ((0, 1) if died else (1,)), f"dead before access {n}"
        assert bench.blocks_in_use() == 0, f"dead before access {n}"
        if not died:
            break
    assert n > 20


@pytest.mark.parametrize("length", [600, 2 * SPAN])
def test_consumer_may_die_at_any_access(step_life: StepLife, length: int) -> None:
    """Until it is DONE the message is delivered again, with its block."""
    for n in range(1000):
        bench = Bench(step_life)
        sender, seg, other = bench.actor(), bench.actor(), bench.actor()
        block = send(bench, sender, length)
        first: list[int] = []
        died = step_life.dies(n, lambda bench=bench, seg=seg, first=first: first.extend(receive(bench, seg)))
        bench.kill(seg)
        bench.arena.scavenge_arena(other)
        again = bench.mbox.recover_mbox(other, 0)
        got = receive(bench, other)
        assert not set(got) - {block}
        assert len(got) >= again
        bench.arena.scavenge_arena(other)
        bench.arena.scavenge_arena(other)
        assert bench.blocks_in_use() == 0, f"dead before access {n}"
        if not died:
            break
    assert n > 10


@pytest.mark.parametrize("length", [600, 2 * SPAN])
def test_scavengers_may_meet_at_any_access(step_life: StepLife, length: int) -> None:
    """One scavenger is overtaken by another, and by a sender that uses what came back: its block is its own."""
    for n in range(1000):
        bench = Bench(step_life)
        dead, one, other, sender = (bench.actor() for _ in range(4))
        bench.arena.alloc_block(dead, length)
        bench.kill(dead)
        kept: list[int] = []

        def meanwhile(bench: Bench = bench, other: Any = other, sender: Any = sender, kept: list[int] = kept) -> None:
            bench.arena.scavenge_arena(other)
            bench.arena.scavenge_arena(other)
            kept.append(bench.arena.alloc_block(sender, length))

        more = step_life.interrupted(n, lambda bench=bench, one=one: bench.arena.scavenge_arena(one), meanwhile)
        if not more:
            break
        assert kept[0] != 0, f"at access {n}"
        used = 1 if length == 600 else 2
        assert bench.blocks_in_use() == used, f"at access {n}"
    assert n > 5
