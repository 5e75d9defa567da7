"""Geometry and names: every offset follows from seven numbers, and no two tables overlap."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from protocol import GEOMETRY, Bench
from upcall.kern import const

BIG = (1024, 1024, 1024, 4096, 255, 1000, 100)
ODD = (3, 5, 7, 9, 1, 65, 1)


@pytest.mark.parametrize("geometry", [GEOMETRY, BIG, ODD])
def test_tables_follow_each_other_without_overlap(life: Any, geometry: tuple[int, ...]) -> None:
    s = life.kern.layout.Seg(*geometry)
    parts = [
        (0, const.HEADER_SIZE),
        (s.slots, s.max_slots * const.SLOT_STRIDE),
        (s.procinfo, const.PROCINFO_SIZE),
        (s.vcoremap, s.max_vcores * 8),
        (s.vcpds, s.max_vcores * const.VCPD_STRIDE),
        (s.queues, s.max_queues * const.EVQ_STRIDE),
        (s.mboxes, s.nr_mboxes * const.MBOX_STRIDE),
        (s.types, s.max_types * const.NAME_BYTES),
        (s.sources, const.NR_SOURCES * const.SOURCE_STRIDE),
        (s.bitmap, (s.nr_pages + 63) // 64 * 8),
        (s.spans, s.nr_spans * const.SPAN_STRIDE),
        (s.pages, s.nr_pages * s.page_size),
        (s.arena, s.nr_spans * const.SPAN_SIZE),
        (s.size, 0),
    ]
    for (at, size), (after, _) in pairwise(parts):
        assert at + size <= after


@pytest.mark.parametrize("geometry", [GEOMETRY, BIG, ODD])
def test_every_record_is_aligned(life: Any, geometry: tuple[int, ...]) -> None:
    layout = life.kern.layout
    s = layout.Seg(*geometry)
    starts = [
        s.slots,
        s.procinfo,
        s.vcoremap,
        s.vcpds,
        s.queues,
        s.mboxes,
        s.sources,
        s.bitmap,
        s.spans,
        s.pages,
        s.arena,
    ]
    assert not [at for at in starts if at % 64]
    assert (s.pages % 4096, s.arena % 4096) == (0, 0)


@pytest.mark.parametrize("geometry", [GEOMETRY, BIG, ODD])
def test_last_records_end_where_the_tables_end(life: Any, geometry: tuple[int, ...]) -> None:
    layout = life.kern.layout
    s = layout.Seg(*geometry)
    assert layout.vcpd_at(s, s.max_vcores - 1) + const.VCPD_STRIDE == s.queues
    assert layout.evq_at(s, s.max_queues - 1) + const.EVQ_STRIDE == s.mboxes
    assert layout.mbox_at(s, s.nr_mboxes - 1) + const.MBOX_STRIDE == s.types
    assert layout.slot_record_at(s, s.max_slots - 1) + const.SLOT_STRIDE == s.procinfo
    assert layout.page_at(s, s.nr_pages) + s.page_size <= s.arena
    assert layout.span_at(s, s.nr_spans - 1) + const.SPAN_STRIDE <= s.pages


def test_both_lives_compute_the_same_offsets(lives: Any) -> None:
    names = (
        "nr_mboxes page_size size slots procinfo vcoremap vcpds queues mboxes types bitmap spans tables_end pages arena"
    )
    for geometry in (GEOMETRY, BIG, ODD):
        one, other = (lives(name).kern.layout.Seg(*geometry) for name in ("compiled", "interpreted"))
        assert [getattr(one, name) for name in names.split()] == [getattr(other, name) for name in names.split()]


def test_compiled_code_finds_what_python_finds(lives: Any) -> None:
    """The functions of layout.pxd are inside compiled ones, and cannot be called by themselves."""
    kern = lives("compiled").kern
    s = kern.layout.Seg(*BIG)
    last = kern.layout.place(s.nr_pages, s.page_slots - 1, const.GEN_MASK)
    slots = kern.layout.page_at(s, s.nr_pages) + const.PAGE_HEADER
    assert kern.ucq.slot_at(s, last) == slots + (s.page_slots - 1) * const.SLOT_SIZE
    records = kern.layout.span_at(s, s.nr_spans - 1) + const.SP_BLOCKS
    assert kern.arena.block_record(s, s.nr_spans - 1, 127) == records + 127 * const.BLOCK_STRIDE


def test_unknown_name_of_the_layout_is_an_error(life: Any) -> None:
    with pytest.raises(AttributeError, match="nowhere_at"):
        life.kern.layout.nowhere_at  # noqa: B018


def test_word_keeps_its_three_parts_apart(life: Any) -> None:
    w = life.kern.layout.word(const.TAKEN, const.GEN_MASK, 0xFFFFFFFF)
    assert w == 0xFFFFFFFF_FFFFFF_03


def test_place_keeps_its_three_parts_apart(life: Any) -> None:
    where = life.kern.layout.place(const.PAGE_MASK, 0xFFF, const.GEN_MASK)
    assert where == 0xFFFFFF_FFF_FFFFF


def test_name_is_slot_and_generation_in_32_bits(life: Any) -> None:
    assert life.kern.layout.name_of(const.SLOT_MASK, const.SLOT_GEN_MASK) == 0xFFFFFFFF
    assert life.kern.layout.name_of(0, 1) != 0


def test_vcoreid_is_checked_and_not_the_address(life: Any) -> None:
    s = life.kern.layout.Seg(*GEOMETRY)
    safe = life.kern.layout.vcoreid_is_safe
    assert [vcoreid for vcoreid in (0, 3, 4, const.NO_VCORE, 2**32 - 1, 2**63, 2**64 - 1) if safe(s, vcoreid)] == [0, 3]


def test_message_starts_empty(life: Any) -> None:
    msg = life.kern.layout.Msg()
    msg.ev_type = msg.arg1 = msg.arg2 = msg.arg3 = msg.arg4 = msg.queue = msg.length = msg.block = 7
    msg.clear()
    assert {msg.ev_type, msg.arg1, msg.arg2, msg.arg3, msg.arg4, msg.queue, msg.length, msg.block} == {0}


def test_counter_belongs_to_the_actor(life: Any) -> None:
    bench = Bench(life)
    one, other = bench.actor(), bench.actor()
    bench.layout.count(one, const.AS_SENT, 3)
    bench.layout.count(one, const.AS_SENT, 2)
    assert (bench.counter(one, const.AS_SENT), bench.counter(other, const.AS_SENT)) == (5, 0)


def test_counter_wraps_at_64_bits(life: Any) -> None:
    bench = Bench(life)
    seg = bench.actor()
    bench.layout.count(seg, const.AS_SENT, 2**64 - 1)
    bench.layout.count(seg, const.AS_SENT, 2)
    assert bench.counter(seg, const.AS_SENT) == 1
