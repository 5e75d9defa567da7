"""The page pool: a page has one owner, comes back after use and after deaths, and never while it is in use."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import Bench, StepLife
from upcall.kern import const


@pytest.fixture
def bench(life: Any) -> Bench:
    return Bench(life)


def fill(bench: Bench, seg: Any, mbox: int, count: int) -> None:
    for i in range(count):
        assert bench.ucq.send_ucq_msg(seg, mbox, bench.message(i)) == const.OK


def test_no_page_is_real_before_it_is_needed(bench: Bench) -> None:
    assert bench.get(bench.at.procinfo + const.PI_PAGES_REAL) == 0


def test_each_page_is_given_once(bench: Bench) -> None:
    one, other = bench.actor(), bench.actor()
    pages = [bench.pages.alloc_page((one, other)[i % 2]) for i in range(16)]
    assert sorted(pages) == list(range(1, 17))


def test_full_pool_gives_no_page(bench: Bench) -> None:
    seg = bench.actor()
    for _ in range(16):
        bench.pages.alloc_page(seg)
    assert bench.pages.alloc_page(seg) == 0


def test_claimed_page_carries_its_owner(bench: Bench) -> None:
    seg = bench.actor()
    page = bench.pages.alloc_page(seg)
    assert bench.page_word(page) == bench.layout.word(const.PAGE_CLAIMED, 1, seg.me)
    assert bench.page_word(page) >> 32 == seg.me


def test_claimed_page_cannot_be_claimed(bench: Bench) -> None:
    seg = bench.actor()
    page = bench.pages.alloc_page(seg)
    assert not bench.pages.claim_page(bench.actor(), page)


def test_abandoned_page_falls_back_a_generation(bench: Bench) -> None:
    seg = bench.actor()
    page = bench.pages.alloc_page(seg)
    bench.pages.abandon_page(seg, page, 1)
    assert bench.page_word(page) == bench.layout.word(const.PAGE_FREE, 0, 0)
    assert page in bench.free_pages()


def test_page_of_another_cannot_be_abandoned(bench: Bench) -> None:
    page = bench.pages.alloc_page(bench.actor())
    word = bench.page_word(page)
    bench.pages.abandon_page(bench.actor(), page, 1)
    assert bench.page_word(page) == word


def test_anybody_may_finish_a_link(bench: Bench) -> None:
    page = bench.pages.alloc_page(bench.actor())
    bench.pages.link_page(bench.actor(), page, 1, 5)
    assert bench.page_word(page) == bench.layout.word(const.PAGE_LINKED, 1, 5)


def test_link_of_another_generation_does_nothing(bench: Bench) -> None:
    seg = bench.actor()
    page = bench.pages.alloc_page(seg)
    bench.pages.link_page(seg, page, 2, 5)
    assert bench.page_word(page) & 15 == const.PAGE_CLAIMED


def test_retired_page_keeps_its_generation(bench: Bench) -> None:
    seg = bench.actor()
    page = bench.pages.alloc_page(seg)
    bench.pages.retire_page(seg, page, 1, 5)
    assert bench.page_word(page) == bench.layout.word(const.PAGE_FREE, 1, 0)
    assert page in bench.free_pages()


def test_generation_wraps_and_the_page_is_usable(bench: Bench) -> None:
    """The slots of generation 0 are EMPTY when they hold (DONE, the last generation)."""
    seg = bench.actor()
    fill(bench, seg, 0, 1)
    bench.pages.alloc_page(seg)
    page = bench.pages.alloc_page(seg)
    at = bench.layout.page_at(bench.at, page)
    bench.set(at, bench.layout.word(const.PAGE_FREE, const.GEN_MASK, 0))
    for i in range(4):
        bench.set(at + const.PAGE_HEADER + i * const.SLOT_SIZE, bench.layout.word(const.DONE, const.GEN_MASK, 0))
    for other in range(1, 17):
        if other != page and bench.page_word(other) & 15 == const.PAGE_FREE:
            assert bench.pages.claim_page(seg, other)
    bench.pages.give_page(seg, page)
    fill(bench, seg, 3, 4)
    assert bench.chain(3) == [page]
    assert bench.pages.page_generation(seg, page) == 0
    assert bench.consume(seg, 3) == [0, 1, 2, 3]


def test_pool_grows_by_chunks(life: Any) -> None:
    bench = Bench(life, geometry=(4, 4, 64, 8, 4, 100, 8))
    seg = bench.actor()
    bench.pages.alloc_page(seg)
    assert bench.get(bench.at.procinfo + const.PI_PAGES_REAL) == const.PAGES_CHUNK
    for _ in range(99):
        assert bench.pages.alloc_page(seg)
    assert bench.get(bench.at.procinfo + const.PI_PAGES_REAL) == 100
    assert bench.pages.alloc_page(seg) == 0


def test_file_system_without_room_is_a_full_pool(lives: Any) -> None:
    bench = Bench(lives("interpreted"))
    bench.world.real_limit = bench.at.pages
    seg = bench.actor()
    assert bench.pages.alloc_page(seg) == 0
    assert bench.get(bench.at.procinfo + const.PI_PAGES_REAL) == 0


def test_page_is_made_real_before_anyone_writes_to_it(lives: Any) -> None:
    bench = Bench(lives("interpreted"), geometry=(4, 4, 64, 8, 4, 100, 8))
    bench.world.real_limit = bench.at.pages + const.PAGES_CHUNK * bench.at.page_size
    seg = bench.actor()
    pages = [bench.pages.alloc_page(seg) for _ in range(const.PAGES_CHUNK + 1)]
    assert pages[-1] == 0
    assert max(pages) == const.PAGES_CHUNK


def test_wrong_bit_for_a_page_in_use_does_no_harm(bench: Bench) -> None:
    seg = bench.actor()
    taken = bench.pages.alloc_page(seg)
    bench.set(bench.at.bitmap, 2**64 - 1)
    others = {bench.pages.alloc_page(seg) for _ in range(15)}
    assert others == set(range(1, 17)) - {taken}


def test_bits_behind_the_last_page_are_no_pages(bench: Bench) -> None:
    seg = bench.actor()
    for _ in range(16):
        bench.pages.alloc_page(seg)
    bench.set(bench.at.bitmap, 0xFFFF_0000_0000_0000)
    assert bench.pages.alloc_page(seg) == 0


# ---- left by the dead ------------------------------------------------------------------------------------------------


def test_living_claimer_keeps_its_page(bench: Bench) -> None:
    page = bench.pages.alloc_page(bench.actor())
    assert bench.pages.scavenge_page(bench.actor(), page) == 0


def test_page_of_a_dead_claimer_comes_back(bench: Bench) -> None:
    seg, other = bench.actor(), bench.actor()
    page = bench.pages.alloc_page(seg)
    bench.kill(seg)
    assert bench.pages.scavenge_pages(other) == 1
    assert page in bench.free_pages()
    assert bench.pages.page_generation(other, page) == 0


def test_page_of_a_dead_claimer_that_is_linked_stays(bench: Bench) -> None:
    """The claimer died after its page was linked, before the word said so."""
    seg, other = bench.actor(), bench.actor()
    fill(bench, seg, 2, 1)
    page = bench.chain(2)[0]
    bench.set(bench.layout.page_at(bench.at, page), bench.layout.word(const.PAGE_CLAIMED, 1, seg.me))
    bench.kill(seg)
    assert bench.pages.scavenge_pages(other) == 0
    assert bench.page_word(page) == bench.layout.word(const.PAGE_LINKED, 1, 2)
    assert bench.waiting(2) == [0]


def test_free_page_without_a_bit_is_found(bench: Bench) -> None:
    seg = bench.actor()
    bench.pages.abandon_page(seg, bench.pages.alloc_page(seg), 1)
    bench.set(bench.at.bitmap, 0)
    assert bench.pages.scavenge_pages(seg) == 16
    assert len(bench.free_pages()) == 16


def test_full_pool_looks_for_pages_of_the_dead(bench: Bench) -> None:
    seg, other = bench.actor(), bench.actor()
    for _ in range(16):
        bench.pages.alloc_page(seg)
    bench.kill(seg)
    assert bench.pages.alloc_page(other) != 0


def test_page_that_the_head_has_passed_comes_back(bench: Bench) -> None:
    """Whoever moved the head died before it gave the page back."""
    seg = bench.actor()
    fill(bench, seg, 0, 5)
    first, second = bench.chain(0)
    at, link = bench.layout.mbox_at(bench.at, 0), bench.layout.page_at(bench.at, first) + const.PG_NEXT
    bench.set(link, bench.get(link) | const.LINK_LEAVING)
    bench.set(at + const.MB_HEAD, bench.layout.place(second, 0, bench.pages.page_generation(seg, second)))
    assert bench.pages.scavenge_page(seg, second) == 0
    assert bench.pages.scavenge_page(seg, first) == 1
    assert not bench.pages_lost()


def test_page_before_the_end_of_a_chain_stays(bench: Bench) -> None:
    seg = bench.actor()
    fill(bench, seg, 0, 12)
    assert bench.pages.scavenge_pages(seg) == 0
    assert bench.waiting(0) == list(range(12))


def test_name_of_an_older_generation_is_dead(bench: Bench) -> None:
    seg, other = bench.actor(), bench.actor()
    assert not bench.pages.name_is_dead(other, seg.me)
    bench.kill(seg)
    assert bench.pages.name_is_dead(other, seg.me)


def test_name_without_a_lock_is_dead(lives: Any) -> None:
    bench = Bench(lives("interpreted"))
    seg, other = bench.actor(), bench.actor()
    bench.world.dead.add(seg.my_slot)
    assert bench.pages.name_is_dead(other, seg.me)


def test_one_is_never_dead_oneself(bench: Bench) -> None:
    seg = bench.actor()
    bench.kill(seg)
    assert not bench.pages.name_is_dead(seg, seg.me)


@pytest.mark.parametrize("name", [0xFFF, 0x1000 | 0xFFF, 2**32 - 1, 2**64 - 1, 0x1008])
def test_name_with_an_impossible_slot_is_dead(bench: Bench, name: int) -> None:
    assert bench.pages.name_is_dead(bench.actor(), name)


def test_a_buried_name_is_dead_though_its_lock_is_held(bench: Bench) -> None:
    """A child that a dying process was forking holds its lock for a moment: who has seen the death need not ask."""
    seg, other = bench.actor(), bench.actor()
    bench.pages.bury_name(other, seg.me)
    assert bench.pages.name_is_dead(other, seg.me)


def test_only_the_owner_of_that_name_is_buried(bench: Bench) -> None:
    former, other = bench.actor(), bench.actor()
    bench.kill(former)
    before = bytes(bench.buffer)
    bench.pages.bury_name(other, former.me)
    for name in (0xFFF, 2**32 - 1, 2**64 - 1):
        bench.pages.bury_name(other, name)
    assert bytes(bench.buffer) == before


# ---- who waits for room ----------------------------------------------------------------------------------------------


def test_page_given_back_tells_those_who_wait(bench: Bench) -> None:
    seg = bench.actor()
    page = bench.pages.alloc_page(seg)
    bench.set(bench.at.procinfo + const.PI_POOL_WAITERS, 1, 4)
    bench.pages.abandon_page(seg, page, 1)
    assert bench.get(bench.at.procinfo + const.PI_POOL_ROOM, 4) == 1


def test_page_given_back_tells_nobody_if_nobody_waits(bench: Bench) -> None:
    seg = bench.actor()
    bench.pages.abandon_page(seg, bench.pages.alloc_page(seg), 1)
    assert bench.get(bench.at.procinfo + const.PI_POOL_ROOM, 4) == 0


# ---- at every step ---------------------------------------------------------------------------------------------------


def test_claimer_may_die_at_any_access(step_life: StepLife) -> None:
    """Claim, link, use, retire: whatever the access it dies before, every page is free or linked after scavenging."""
    for n in range(10_000):
        bench = Bench(step_life)
        seg, other = bench.actor(), bench.actor()

        def life_of_a_page(bench: Bench = bench, seg: Any = seg) -> None:
            fill(bench, seg, 1, 9)
            bench.consume(seg, 1)

        died = step_life.dies(n, life_of_a_page)
        bench.kill(seg)
        bench.mbox.recover_mbox(other, 1)
        bench.consume(other, 1)
        bench.pages.scavenge_pages(other)
        assert not bench.pages_lost(), f"dead before access {n}"
        if not died:
            break
    assert n > 200


def test_page_that_was_never_linked_is_not_lost_at_any_interleaving(step_life: StepLife) -> None:
    """Its claimer died before the link; while the scavenger walks the chain that it was for, pages are used again. The walk
    that cannot tell must not call it LINKED: it is in no chain, and nobody would ever look at it again."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, other, third = bench.actor(), bench.actor(), bench.actor()
        fill(bench, third, 0, 9)
        page = bench.pages.alloc_page(seg)
        at = bench.layout.page_at(bench.at, page)
        bench.set(at + const.PG_NEXT, bench.layout.place(0, 0, 1))
        bench.set(at + const.PG_MBOX, 0)
        bench.kill(seg)

        def meanwhile(bench: Bench = bench, third: Any = third) -> None:
            bench.consume(third, 0)
            fill(bench, third, 5, 9)

        more = step_life.interrupted(
            n, lambda bench=bench, other=other, page=page: bench.pages.scavenge_page(other, page), meanwhile
        )
        bench.pages.scavenge_pages(other)
        assert not bench.pages_lost(), f"at access {n}"
        if not more:
            break
    assert n > 8


def test_scavenger_never_takes_a_linked_page_at_any_interleaving(step_life: StepLife) -> None:
    """The claimer of the last page is dead, and its word still says CLAIMED; while the scavenger walks the chain, the
    pages before it are consumed and used for another mailbox."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, other, third = bench.actor(), bench.actor(), bench.actor()
        fill(bench, seg, 0, 9)
        last = bench.chain(0)[-1]
        bench.set(bench.layout.page_at(bench.at, last), bench.layout.word(const.PAGE_CLAIMED, 1, seg.me))
        bench.kill(seg)

        def meanwhile(bench: Bench = bench, third: Any = third) -> None:
            cur = bench.mbox.Cursor(0)
            for _ in range(8):
                assert bench.mbox.take(third, cur)
                bench.mbox.put_done(third, cur, cur.taken)
            bench.ucq.advance_head(third, 0)
            bench.pages.alloc_page(third)
            fill(bench, third, 5, 4)

        more = step_life.interrupted(
            n, lambda bench=bench, other=other, last=last: bench.pages.scavenge_page(other, last), meanwhile
        )
        assert bench.page_word(last) & 15 != const.PAGE_FREE, f"at access {n}"
        assert bench.waiting(0)[-1] == 8
        if not more:
            break
    assert n > 8
