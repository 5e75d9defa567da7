"""The table of sources, in both lives; makers and firers that die at any access, and firers that meet."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import Bench, StepLife
from upcall.kern import const


def make(bench: Bench, seg: Any, value: int = 0, replaces: int = 0) -> int:
    table = bench.source
    index = table.claim_source(seg)
    assert index < const.NR_SOURCES
    table.write_source(seg, index, const.KIND_ALARM, const.EV_ALARM, 1, 0, value, 5, 6, 7)
    table.set_source_key(seg, index, 0, replaces)
    return int(table.set_source(seg, index))


def all_of(bench: Bench, seg: Any) -> list[int]:
    found, index = [], 0
    while ident := bench.source.next_source(seg, index):
        found.append(ident)
        index = (ident & 0xFFFF) + 1
    return found


def count(bench: Bench, ident: int) -> int:
    at = bench.layout.source_at(bench.at, ident & 0xFFFF) + const.SR_COUNT
    return bench.get(at) & (1 << 40) - 1


def fire(bench: Bench, seg: Any, ident: int, sent: list[int], after: int = const.SOURCE_SET) -> None:
    if bench.source.begin_firing(seg, ident):
        sent.append(seg.me)
        bench.source.end_firing(seg, ident, 1, after)


def test_a_source_is_made_fired_and_dropped(life: Any) -> None:
    bench = Bench(life)
    seg = bench.actor()
    assert all_of(bench, seg) == []
    first, second = make(bench, seg), make(bench, seg, 9)
    assert all_of(bench, seg) == [first, second]
    sent: list[int] = []
    fire(bench, seg, first, sent)
    fire(bench, seg, first, sent)
    assert (len(sent), count(bench, first)) == (2, 2)
    fire(bench, seg, second, sent, const.SOURCE_SPENT)
    fire(bench, seg, second, sent)
    assert len(sent) == 3
    assert bench.source.source_state(seg, second) == const.SOURCE_SPENT
    assert bench.source.drop_source(seg, first)
    assert not bench.source.drop_source(seg, first)
    assert not bench.source.begin_firing(seg, first)
    again = make(bench, seg)
    assert again & 0xFFFF == first & 0xFFFF
    assert again != first
    assert count(bench, again) == 0
    bench.source.add_count(seg, first, 5)  # somebody late, with the former life's id
    assert count(bench, again) == 0
    assert bench.source.source_state(seg, first) == const.SOURCE_FREE


@pytest.mark.parametrize("ident", [0, const.NR_SOURCES, 0xFFFF, 1 << 16 | 0xFFFF, 2**64 - 1])
def test_ids_of_nothing_are_nothing(life: Any, ident: int) -> None:
    bench = Bench(life)
    seg = bench.actor()
    table = bench.source
    assert table.source_state(seg, ident) == const.SOURCE_FREE
    assert not table.drop_source(seg, ident)
    assert not table.begin_firing(seg, ident)
    assert not table.end_firing(seg, ident, 1, const.SOURCE_SET)
    table.add_count(seg, ident, 1)


def test_a_full_table_says_so(lives: Any) -> None:
    bench = Bench(lives("compiled"))
    seg = bench.actor()
    made = [make(bench, seg) for _ in range(const.NR_SOURCES)]
    assert bench.source.claim_source(seg) == const.NR_SOURCES
    assert bench.source.drop_source(seg, made[77])
    assert bench.source.claim_source(seg) == 77


def test_a_maker_may_die_at_any_access(step_life: StepLife) -> None:
    """The source is there whole, or its record is used again."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, other = bench.actor(), bench.actor()
        died = step_life.dies(n, lambda bench=bench, seg=seg: make(bench, seg, 3))
        bench.kill(seg)
        found = all_of(bench, other)
        again = make(bench, other)
        assert (again & 0xFFFF) == len(found), f"dead before access {n}"
        for ident in found:
            assert bench.get(bench.layout.source_at(bench.at, ident & 0xFFFF) + const.SR_VALUE) == 3
        if not died:
            break
    assert n > 15


def test_a_firer_may_die_at_any_access(step_life: StepLife) -> None:
    """Its event is sent by the next one if it was not, and counted: at most once more."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, other = bench.actor(), bench.actor()
        ident = make(bench, other)
        sent: list[int] = []
        died = step_life.dies(n, lambda b=bench, s=seg, i=ident, e=sent: fire(b, s, i, e, const.SOURCE_FREE))
        bench.kill(seg)
        fire(bench, other, ident, sent, const.SOURCE_FREE)
        assert 1 <= len(sent) <= 1 + died, f"dead before access {n}"
        assert bench.source.source_state(other, ident) == const.SOURCE_FREE
        if not died:
            break
    assert n > 5


@pytest.mark.parametrize("after", [const.SOURCE_SPENT, const.SOURCE_FREE])
def test_of_two_firers_one_sends_at_any_access(step_life: StepLife, after: int) -> None:
    for n in range(1000):
        bench = Bench(step_life)
        seg, other = bench.actor(), bench.actor()
        ident = make(bench, seg)
        sent: list[int] = []
        more = step_life.interrupted(
            n, lambda b=bench, s=seg, i=ident, e=sent: fire(b, s, i, e, after),
            lambda b=bench, s=other, i=ident, e=sent: fire(b, s, i, e, after),
        )  # fmt: skip
        assert len(sent) == 1, f"at access {n}"
        assert count(bench, ident) == 1
        if not more:
            break
    assert n > 5


def test_a_source_that_is_cancelled_while_it_fires_stays_so_at_any_access(step_life: StepLife) -> None:
    """Also when its record has its next life by then: the firer, who comes late, changes nothing in it."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, other = bench.actor(), bench.actor()
        ident = make(bench, seg)
        sent: list[int] = []
        made: list[int] = []

        def meanwhile(b: Bench = bench, s: Any = other, i: int = ident, m: list[int] = made) -> None:
            b.source.drop_source(s, i)
            m.append(make(b, s, 8))

        more = step_life.interrupted(n, lambda b=bench, s=seg, i=ident, e=sent: fire(b, s, i, e), meanwhile)
        if made:
            assert all_of(bench, other) == made, f"at access {n}"
            assert count(bench, made[0]) == 0
            assert bench.source.source_state(other, made[0]) == const.SOURCE_SET
        if not more:
            break
    assert n > 4


def test_who_gives_an_alarm_another_time_may_die_at_any_access(step_life: StepLife) -> None:
    """Old and new: what the watcher does about both leaves one of them."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, other = bench.actor(), bench.actor()
        old = make(bench, seg)

        def reschedule(b: Bench = bench, s: Any = seg, i: int = old) -> None:
            make(b, s, replaces=i)
            b.source.drop_source(s, i)

        died = step_life.dies(n, reschedule)
        bench.kill(seg)
        for ident in all_of(bench, other):
            replaces = bench.get(bench.layout.source_at(bench.at, ident & 0xFFFF) + const.SR_REPLACES)
            bench.source.drop_source(other, replaces)
        assert len(all_of(bench, other)) == 1, f"dead before access {n}"
        if not died:
            break
    assert n > 15
