"""Holes of the file: no number and no word that the segment holds leads anybody to a page or a span without memory, which
is SIGBUS on a full file system.

In the interpreted life an access to a hole is an IndexError, whoever made it (`machine.door.Memory`); with real processes
on a full file system: `test_segment_files.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from protocol import Bench
from upcall.kern import const

GEOMETRY = (4, 4, 64, 8, 4, 100, 8)
"""Pages in chunks of 32, 32, 32 and 4."""
BOX = 0


@pytest.fixture
def bench(life: Any) -> Bench:
    return Bench(life, geometry=GEOMETRY)


@pytest.fixture
def holed(lives: Any) -> Bench:
    """A file system that is full: no hole of the file gets memory any more. One chunk of pages and two spans are real."""
    bench = Bench(lives("interpreted"), geometry=GEOMETRY)
    seg = bench.actor()
    fill(bench, seg, 8)
    assert bench.arena.alloc_block(seg, 600)
    assert bench.arena.alloc_block(seg, 20000)
    assert (seg.real_pages, seg.real_spans) == (32, 2)
    bench.world.real_limit = 0
    return bench


def fill(bench: Bench, seg: Any, pages: int) -> None:
    for i in range(4 * pages):
        assert bench.ucq.send_ucq_msg(seg, BOX, bench.message(i)) == const.OK


def syscalls(bench: Bench, seg: Any) -> int:
    return bench.counter(seg, const.AS_SYSCALLS)


def lie(bench: Bench) -> None:
    """All of the pool and of the arena is said to be real."""
    bench.set(bench.at.procinfo + const.PI_PAGES_REAL, bench.at.nr_pages)
    bench.set(bench.at.procinfo + const.PI_SPANS_REAL, bench.at.nr_spans)


def test_each_actor_asks_for_memory_once_for_each_chunk_and_never_again(bench: Bench) -> None:
    sender, taker = bench.actor(), bench.actor()
    for _ in range(3):
        fill(bench, sender, 40)
        assert bench.consume(taker, BOX) == list(range(160))
        assert (sender.real_pages, taker.real_pages) == (64, 64)
        assert (syscalls(bench, sender), syscalls(bench, taker)) == (2, 2)


def test_an_actor_that_comes_late_asks_for_all_before_in_one_call(bench: Bench) -> None:
    sender, late = bench.actor(), bench.actor()
    fill(bench, sender, 99)
    assert bench.consume(sender, BOX)
    fill(bench, late, 1)
    assert syscalls(bench, late) == 1


def test_a_block_is_asked_for_by_each_who_uses_it(bench: Bench) -> None:
    sender, taker = bench.actor(), bench.actor()
    blocks = [bench.arena.alloc_block(sender, length) for length in (600, 20000, 3 * const.SPAN_SIZE)]
    assert (sender.real_spans, syscalls(bench, sender)) == (5, 3)
    for block, real, calls in zip(blocks, (1, 2, 5), (1, 2, 3), strict=True):
        for _ in range(2):
            assert bench.arena.block_capacity(taker, block)
            assert (taker.real_spans, syscalls(bench, taker)) == (real, calls)


def test_a_number_beyond_the_last_one_is_never_asked_for(bench: Bench) -> None:
    seg = bench.actor()
    for page in (101, 128, const.PAGE_MASK):
        assert not bench.layout.is_real(seg, page)
    for ref in (9, 2**32 - 1):
        assert bench.arena.block_capacity(seg, ref) == 0
    assert (seg.real_pages, seg.real_spans, syscalls(bench, seg)) == (0, 0, 0)


def test_the_last_chunk_is_no_longer_than_the_pool(bench: Bench) -> None:
    seg = bench.actor()
    assert bench.layout.is_real(seg, 100)
    assert seg.real_pages == 100


def test_what_is_real_is_used_though_the_segment_says_less(bench: Bench) -> None:
    sender, taker = bench.actor(), bench.actor()
    fill(bench, sender, 40)
    bench.set(bench.at.procinfo + const.PI_PAGES_REAL, 0)
    assert bench.ucq.send_ucq_msg(bench.actor(), BOX, bench.message(160)) == const.OK
    assert bench.consume(taker, BOX) == list(range(161))


def test_a_view_without_a_name_counts_nothing(bench: Bench) -> None:
    fill(bench, bench.actor(), 1)
    slots = bytes(bench.buffer[bench.at.slots : bench.at.procinfo])
    assert bench.ucq.mbox_depth(bench.at, BOX) == 4
    assert bench.at.real_pages == 32
    assert bytes(bench.buffer[bench.at.slots : bench.at.procinfo]) == slots


# ---- a full file system ----------------------------------------------------------------------------------------------


def test_an_access_to_a_hole_is_an_error_of_the_test(holed: Bench) -> None:
    door = holed.life.machine.door
    for at in (holed.layout.page_at(holed.at, 33), holed.at.arena + 2 * const.SPAN_SIZE):
        with pytest.raises(IndexError, match="hole"):
            door.ld64(holed.memory, at)
        with pytest.raises(IndexError, match="hole"):
            door.copy_in(holed.memory, at - 8, bytes(16), 16)


def test_what_was_made_real_before_is_used_by_those_who_come_when_there_is_no_room(holed: Bench) -> None:
    late = holed.actor()
    assert holed.ucq.send_ucq_msg(late, BOX, holed.message(32)) == const.OK
    assert holed.consume(holed.actor(), BOX) == list(range(33))
    assert holed.arena.alloc_block(late, 600)


def test_pages_that_are_not_real_are_not_claimed_whatever_the_segment_says(holed: Bench) -> None:
    lie(holed)
    for word in range((holed.at.nr_pages + 63) // 64):
        holed.set(holed.at.bitmap + 8 * word, 2**64 - 1)
    seg = holed.actor()
    assert sorted(iter(lambda: holed.pages.alloc_page(seg), 0)) == list(range(9, 33))
    assert syscalls(holed, seg) == 1  # those that fail are not counted


def test_a_pool_that_is_said_to_be_real_is_full_when_it_is_not(holed: Bench) -> None:
    lie(holed)
    seg, sent = holed.actor(), 0
    while (status := holed.ucq.send_ucq_msg(seg, BOX, holed.message(0))) == const.OK:
        sent += 1
    assert (status, sent) == (const.FULL, 4 * 24)


def test_an_arena_that_is_said_to_be_real_gives_no_payload_a_place_in_a_hole(holed: Bench) -> None:
    lie(holed)
    seg, statuses = holed.actor(), set()
    for length in (600, 5000, 20000, const.SPAN_SIZE, 3 * const.SPAN_SIZE) * 300:
        msg = holed.message(1, length=length)
        msg.src = bytes(length)
        statuses.add(holed.event.put_payload(seg, msg))
    assert statuses <= {const.OK, const.FULL, const.CORRUPT}
    assert const.OK in statuses
    assert seg.real_spans == 2


@pytest.mark.parametrize("page", [33, 64, 100])
@pytest.mark.parametrize("where", ["head", "tail", "link"])
def test_a_mailbox_that_leads_into_a_hole_ends_there(holed: Bench, where: str, page: int) -> None:
    """A hole reads as zeros elsewhere: generation 0, each slot EMPTY or DONE of the one before."""
    m, ucq, recover, seg = holed.mbox, holed.ucq, holed.recover_module, holed.actor()
    lie(holed)
    box, hole = holed.layout.mbox_at(holed.at, BOX), holed.layout.place(page, 0, 0)
    if where == "link":
        last = holed.layout.page_at(holed.at, holed.chain(BOX)[-1])
        holed.set(last + const.PG_NEXT, hole)
    else:
        holed.set(box + (const.MB_HEAD if where == "head" else const.MB_TAIL), hole)
    status = ucq.send_ucq_msg(seg, BOX, holed.message(32))
    assert status == {"head": const.OK, "tail": const.OK, "link": const.FULL}[where]
    assert holed.consume(holed.actor(), BOX) == {"head": [], "tail": list(range(33)), "link": list(range(32))}[where]
    # Whoever else walks over a mailbox, or over the pool.
    for _ in range(2):
        ucq.mbox_depth(seg, BOX)
        ucq.count_open(seg, BOX, 0, 100)
        ucq.is_full(seg, BOX, 1)
        ucq.tidy_mbox(seg, BOX)
        m.recover_mbox(seg, BOX)
        m.has_ready(seg, BOX)
        m.waiting_in(seg, BOX, m.mbox_end(seg, BOX))
        recover.mail_waits(seg, BOX)
        holed.pages.scavenge_pages(seg)
        holed.pages.reachable(seg, BOX, 1, 0)
        holed.arena.slot_holds(seg, hole, 1)
        holed.dead.discard_letter(seg, hole)
        holed.dead.resend_letter(seg, hole, holed.message())
    assert seg.real_pages == 32


@pytest.mark.parametrize("kind", ["small", "large"])
def test_a_slot_whose_block_is_in_a_hole_holds_none(holed: Bench, kind: str) -> None:
    lie(holed)
    span, gen = 4, 1 << 8
    holed.set(holed.layout.span_at(holed.at, span), (const.SPAN_SMALL if kind == "small" else const.SPAN_LARGE) | gen)
    holed.set(holed.layout.span_at(holed.at, span) + const.SP_COUNT, 2)
    ref = holed.arena.reference(span, 0 if kind == "small" else const.BLOCK_LARGE)
    holed.set(
        holed.arena.block_word_at(holed.at, ref), (const.BLOCK_HELD if kind == "small" else const.SPAN_LARGE) | gen
    )
    where = holed.get(holed.layout.mbox_at(holed.at, BOX) + const.MB_HEAD)
    slot = holed.ucq.slot_at(holed.at, where)
    holed.set(slot + const.SL_LEN, 100, 4)
    holed.set(slot + const.SL_BLOCK, ref)
    taker = holed.actor()
    assert holed.arena.block_capacity(taker, ref) == 0
    assert holed.mbox.take(taker, holed.mbox.Cursor(BOX)) == slot
    assert holed.dead.read_message(taker, slot, holed.message()) == const.CORRUPT
    holed.dead.settle_message(taker, BOX, where)


def test_a_large_block_that_begins_where_there_is_memory_and_ends_in_a_hole_is_none(holed: Bench) -> None:
    seg, at = holed.actor(), holed.layout.span_at(holed.at, 1)
    holed.set(at, const.SPAN_LARGE | 1 << 8)
    ref = holed.arena.reference(1, const.BLOCK_LARGE)
    for count, capacity in ((1, const.SPAN_SIZE), (2, 0), (7, 0), (8, 0), (2**64 - 1, 0)):
        holed.set(at + const.SP_COUNT, count)
        assert holed.arena.block_capacity(seg, ref) == capacity


def test_a_hole_that_gets_memory_is_used(holed: Bench) -> None:
    seg = holed.actor()
    assert not holed.layout.is_real(seg, 33)
    holed.world.real_limit = None
    assert holed.layout.is_real(seg, 33)
    assert seg.real_pages == 64
