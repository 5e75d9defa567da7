"""The mailbox queue, both sides: nothing is lost, doubled or torn, whoever sleeps or dies in the middle."""

from __future__ import annotations

import random
from typing import Any

import pytest

from protocol import Bench, StepLife
from upcall.kern import const

MBOX = 9
"""Queue 1's own."""


@pytest.fixture
def bench(life: Any) -> Bench:
    return Bench(life)


def put(bench: Bench, seg: Any, *args: int, mbox: int = MBOX) -> None:
    for arg in args:
        assert bench.ucq.send_ucq_msg(seg, mbox, bench.message(arg)) == const.OK


def get(bench: Bench, seg: Any, cur: Any, most: int = 10_000) -> list[int]:
    """Takes and finishes up to `most` messages; arg1 of each."""
    found: list[int] = []
    while len(found) < most and (at := bench.mbox.take(seg, cur)):
        found.append(bench.get(at + const.SL_ARG1, 2))
        assert bench.get(at + const.SL_ARG4) == found[-1]
        bench.mbox.put_done(seg, cur, cur.taken)
    return found


def claim(bench: Bench, seg: Any, mbox: int = MBOX) -> int:
    """A sender that stops after its claim: the place."""
    where = bench.ucq.claim_slot(seg, mbox)
    assert where
    return int(where)


def ready(bench: Bench, seg: Any, where: int, arg: int) -> None:
    """The sender goes on: contents, READY."""
    at = bench.ucq.slot_at(seg, where)
    bench.ucq.fill_slot(seg, at, bench.message(arg))
    bench.set(at, bench.layout.word(const.READY, where >> 32, seg.me))


# ---- one sender, one consumer ----------------------------------------------------------------------------------------


def test_unused_mailbox_has_nothing(bench: Bench) -> None:
    seg = bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    assert bench.mbox.take(seg, cur) == 0
    assert not bench.mbox.news(seg, cur)


def test_all_fields_arrive(bench: Bench) -> None:
    seg = bench.actor()
    msg = bench.message(ev_type=0xFFFF, arg1=0xFFFF, arg2=2**32 - 1, arg3=2**64 - 1, arg4=2**64 - 2, queue=3)
    assert bench.ucq.send_ucq_msg(seg, MBOX, msg) == const.OK
    at = bench.mbox.take(seg, bench.mbox.Cursor(MBOX))
    fields = [(const.SL_TYPE, 2), (const.SL_ARG1, 2), (const.SL_ARG2, 4), (const.SL_ARG3, 8), (const.SL_ARG4, 8)]
    assert [bench.get(at + field, width) for field, width in fields] == [
        0xFFFF, 0xFFFF, 2**32 - 1, 2**64 - 1, 2**64 - 2,
    ]  # fmt: skip
    assert (bench.get(at + const.SL_QUEUE, 2), bench.get(at + const.SL_LEN, 4)) == (3, 0)


@pytest.mark.parametrize("length", [1, 7, 8, 9, const.INLINE_MAX])
def test_inline_payload_stays_in_its_slot(lives: Any, length: int) -> None:
    bench = Bench(lives("interpreted"))
    seg = bench.actor()
    payload = bytes(range(1, length + 1))
    for i in range(2):
        msg = bench.message(i, length=length)
        msg.src = payload
        assert bench.ucq.send_ucq_msg(seg, MBOX, msg) == const.OK
    cur = bench.mbox.Cursor(MBOX)
    for _ in range(2):
        at = bench.mbox.take(seg, cur) + const.SL_INLINE
        assert bytes(bench.buffer[at : at + length]) == payload


def test_order_holds_over_many_pages(bench: Bench) -> None:
    seg = bench.actor()
    put(bench, seg, *range(60))
    assert get(bench, bench.actor(), bench.mbox.Cursor(MBOX)) == list(range(60))


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 8, 9, 13])
def test_pages_turn_over_for_ever(bench: Bench, batch: int) -> None:
    seg, other = bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    sent = 0
    while sent < 500:
        put(bench, seg, *range(sent, sent + batch))
        assert get(bench, other, cur) == list(range(sent, sent + batch))
        sent += batch
    assert len(bench.chain(MBOX)) <= 2
    assert not bench.pages_lost()


def test_full_pool_sends_nothing_and_room_comes_back(bench: Bench) -> None:
    seg, other = bench.actor(), bench.actor()
    put(bench, seg, *range(64))
    assert bench.ucq.send_ucq_msg(seg, MBOX, bench.message(64)) == const.FULL
    cur = bench.mbox.Cursor(MBOX)
    assert get(bench, other, cur) == list(range(64))
    put(bench, seg, *range(64, 70))
    assert get(bench, other, cur) == list(range(64, 70))


def test_mailbox_without_a_page_is_full_when_the_pool_is(bench: Bench) -> None:
    seg = bench.actor()
    put(bench, seg, *range(64))
    assert bench.ucq.send_ucq_msg(seg, MBOX + 1, bench.message()) == const.FULL


def test_mailboxes_do_not_mix(bench: Bench) -> None:
    seg = bench.actor()
    for i in range(10):
        put(bench, seg, i, mbox=i % 3)
    for mbox in range(3):
        assert get(bench, seg, bench.mbox.Cursor(mbox)) == list(range(mbox, 10, 3))


def test_last_page_stays(bench: Bench) -> None:
    seg = bench.actor()
    put(bench, seg, *range(4))
    get(bench, seg, bench.mbox.Cursor(MBOX))
    bench.ucq.advance_head(seg, MBOX)
    assert len(bench.chain(MBOX)) == 1


def test_more_waiting_sees_the_next_message(bench: Bench) -> None:
    seg = bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    put(bench, seg, 0, 1)
    bench.mbox.take(seg, cur)
    assert bench.mbox.more_waiting(seg, cur)
    bench.mbox.take(seg, cur)
    assert not bench.mbox.more_waiting(seg, cur)


# ---- limits ----------------------------------------------------------------------------------------------------------


def limited(bench: Bench, limit: int) -> int:
    bench.set(bench.layout.mbox_at(bench.at, MBOX) + const.MB_LIMIT, limit)
    return MBOX


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 8, 10])
def test_limit_is_the_number_of_messages(bench: Bench, limit: int) -> None:
    seg = bench.actor()
    limited(bench, limit)
    put(bench, seg, *range(limit))
    assert bench.ucq.mbox_depth(seg, MBOX) == limit
    assert bench.ucq.send_ucq_msg(seg, MBOX, bench.message()) == const.FULL


@pytest.mark.parametrize("limit", [1, 3, 4, 5])
def test_each_message_done_makes_room_for_one(bench: Bench, limit: int) -> None:
    seg, other = bench.actor(), bench.actor()
    limited(bench, limit)
    cur = bench.mbox.Cursor(MBOX)
    put(bench, seg, *range(limit))
    for i in range(20):
        assert get(bench, other, cur, 1) == [i]
        put(bench, seg, limit + i)
        assert bench.ucq.send_ucq_msg(seg, MBOX, bench.message()) == const.FULL


def test_room_tells_those_who_wait_for_the_limit(bench: Bench) -> None:
    seg = bench.actor()
    limited(bench, 1)
    at = bench.layout.mbox_at(bench.at, MBOX)
    bench.set(at + const.MB_ROOM_WAITERS, 1, 4)
    put(bench, seg, 0)
    assert bench.get(at + const.MB_ROOM, 4) == 0
    get(bench, seg, bench.mbox.Cursor(MBOX))
    assert bench.get(at + const.MB_ROOM, 4) > 0


@pytest.mark.parametrize("in_hand", [False, True])
def test_one_that_does_not_move_uses_up_one_of_the_limit(bench: Bench, in_hand: bool) -> None:
    """A sender stopped in its claim, or a handler that hangs, keeps the head where it is; others go on."""
    seg, still, other = bench.actor(), bench.actor(), bench.actor()
    limited(bench, 3)
    if in_hand:
        put(bench, seg, 99)
        bench.mbox.take(still, bench.mbox.Cursor(MBOX))
    else:
        bench.ucq.claim_slot(still, MBOX)
    cur = bench.mbox.Cursor(MBOX)
    at = bench.layout.mbox_at(bench.at, MBOX)
    for i in range(0, 30, 2):
        put(bench, seg, i, i + 1)
        assert bench.ucq.send_ucq_msg(seg, MBOX, bench.message()) == const.FULL
        assert bench.ucq.room_word(seg, MBOX) == at + const.MB_ROOM
        bench.set(at + const.MB_ROOM_WAITERS, 1, 4)
        before = bench.get(at + const.MB_ROOM, 4)
        assert get(bench, other, cur) == [i, i + 1]
        assert bench.get(at + const.MB_ROOM, 4) > before


def test_tail_hint_into_another_mailbox_does_not_count_its_depth(bench: Bench) -> None:
    """A sender that was stopped between its claim and its hint writes the hint at last, when the page of that hint serves
    another mailbox: the limit must not see that mailbox's page numbers, or this one is full for ever."""
    seg, other = bench.actor(), bench.actor()
    limited(bench, 6)
    put(bench, seg, 0, 1, 2)
    stale = bench.get(bench.layout.mbox_at(bench.at, MBOX) + const.MB_TAIL)
    cur = bench.mbox.Cursor(MBOX)
    put(bench, seg, 3, 4)
    get(bench, other, cur)
    put(bench, other, *range(13), mbox=0)  # pages 2, 3, 4 of mailbox 0: the last is the one that the hint names
    assert stale & const.PAGE_MASK in bench.chain(0)
    bench.set(bench.layout.mbox_at(bench.at, MBOX) + const.MB_TAIL, stale)
    put(bench, seg, 5)
    assert get(bench, other, cur) == [5]


# ---- hints that lag --------------------------------------------------------------------------------------------------


def test_lagging_tail_hint_finds_the_first_empty_slot(bench: Bench) -> None:
    seg = bench.actor()
    put(bench, seg, 0)
    tail = bench.layout.mbox_at(bench.at, MBOX) + const.MB_TAIL
    lagging = bench.get(tail)
    put(bench, seg, *range(1, 11))
    bench.set(tail, lagging)
    put(bench, seg, 11)
    assert bench.waiting(MBOX) == list(range(12))


def test_tail_hint_into_a_recycled_page_starts_from_the_head(bench: Bench) -> None:
    seg = bench.actor()
    tail = bench.layout.mbox_at(bench.at, MBOX) + const.MB_TAIL
    cur = bench.mbox.Cursor(MBOX)
    put(bench, seg, 0)
    stale = bench.get(tail)
    put(bench, seg, *range(1, 6))
    get(bench, seg, cur)
    put(bench, seg, 100, 101, 102, 103, mbox=0)
    assert stale & const.PAGE_MASK in bench.chain(0)
    bench.set(tail, stale)
    put(bench, seg, 6)
    assert get(bench, seg, cur) == [6]
    assert bench.waiting(0) == [100, 101, 102, 103]


def abandon_first_page(bench: Bench, seg: Any, cur: Any) -> int:
    """Leaves the mailbox's first page free, and given back by somebody who claimed it and lost the race to link it. The
    place behind the last slot of that page in its time with the mailbox."""
    put(bench, seg, 0, 1, 2, 3)
    stale = bench.get(bench.layout.mbox_at(bench.at, MBOX) + const.MB_TAIL)
    put(bench, seg, 4)
    get(bench, seg, cur)
    page = bench.pages.alloc_page(seg)
    assert page == stale & const.PAGE_MASK
    at = bench.layout.page_at(bench.at, page)
    gen = bench.pages.page_generation(seg, page)
    bench.set(at + const.PG_NEXT, bench.layout.place(0, 0, gen))
    bench.pages.abandon_page(seg, page, gen)
    return stale


def test_tail_hint_into_an_abandoned_page_is_not_a_full_pool(bench: Bench) -> None:
    seg = bench.actor()
    stale = abandon_first_page(bench, seg, bench.mbox.Cursor(MBOX))
    bench.set(bench.layout.mbox_at(bench.at, MBOX) + const.MB_TAIL, stale)
    put(bench, seg, 5)
    assert bench.waiting(MBOX) == [5]


def test_cursor_leaves_an_abandoned_page(bench: Bench) -> None:
    """Its page was retired behind its back, claimed, and given back: it leads nowhere, and is not the mailbox's end."""
    seg, other = bench.actor(), bench.actor()
    resting, busy = bench.mbox.Cursor(MBOX), bench.mbox.Cursor(MBOX)
    put(bench, seg, 0)
    assert get(bench, other, resting) == [0]
    assert bench.mbox.take(other, resting) == 0
    bench.mbox.take(seg, busy)
    abandon_first_page_after(bench, seg, busy)
    put(bench, seg, 5)
    assert bench.mbox.news(other, resting)
    assert get(bench, other, resting) == [5]


def abandon_first_page_after(bench: Bench, seg: Any, cur: Any) -> None:
    put(bench, seg, 1, 2, 3, 4)
    get(bench, seg, cur)
    page = bench.pages.alloc_page(seg)
    gen = bench.pages.page_generation(seg, page)
    bench.set(bench.layout.page_at(bench.at, page) + const.PG_NEXT, bench.layout.place(0, 0, gen))
    bench.pages.abandon_page(seg, page, gen)


def test_long_chain_is_busy_and_then_gets_on(life: Any) -> None:
    """A walk from the head over more pages than the bound remembers how far it came."""
    bench = Bench(life, geometry=(1, 1, 64, 8, 1, const.WALK_MAX + 100, 1))
    seg = bench.actor()
    put(bench, seg, *range(const.WALK_MAX + 50), mbox=2)
    bench.set(bench.layout.mbox_at(bench.at, 2) + const.MB_TAIL, bench.get(bench.layout.mbox_at(bench.at, 2)))
    statuses = [bench.ucq.send_ucq_msg(seg, 2, bench.message(9)) for _ in range(3)]
    assert statuses[-1] == const.OK


# ---- senders that stop or die in the middle --------------------------------------------------------------------------


def test_stopped_sender_does_not_block_others(bench: Bench) -> None:
    stopped, seg = bench.actor(), bench.actor()
    claim(bench, stopped)
    put(bench, seg, *range(1, 10))
    assert get(bench, seg, bench.mbox.Cursor(MBOX)) == list(range(1, 10))


def test_message_of_a_stopped_sender_comes_when_it_goes_on(bench: Bench) -> None:
    stopped, seg = bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    where = claim(bench, stopped)
    put(bench, seg, *range(1, 10))
    get(bench, seg, cur)
    assert not bench.mbox.news(seg, cur)
    ready(bench, stopped, where, 77)
    assert bench.mbox.news(seg, cur)
    assert get(bench, seg, cur) == [77]


def test_order_of_a_sender_holds_over_a_slot_passed_over(bench: Bench) -> None:
    """The consumer has passed the sender's slot while it was being written; then it and the next become READY: the
    second look finds the first one first."""
    slow, seg = bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    where = claim(bench, slow)
    put(bench, seg, 100)
    assert get(bench, seg, cur) == [100]
    ready(bench, slow, where, 1)
    put(bench, slow, 2)
    assert get(bench, seg, cur) == [1, 2]


def test_page_with_a_stopped_senders_claim_is_kept(bench: Bench) -> None:
    stopped, seg = bench.actor(), bench.actor()
    where = claim(bench, stopped)
    cur = bench.mbox.Cursor(MBOX)
    for i in range(5):
        put(bench, seg, *range(5 * i, 5 * i + 5))
        get(bench, seg, cur)
        bench.ucq.advance_head(seg, MBOX)
    assert where & const.PAGE_MASK == bench.chain(MBOX)[0]
    ready(bench, stopped, where, 77)
    assert get(bench, seg, bench.mbox.Cursor(MBOX)) == [77]


def test_claim_of_a_dead_sender_is_cleared_away(bench: Bench) -> None:
    dead, seg = bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    claim(bench, dead)
    put(bench, seg, *range(5))
    assert get(bench, seg, cur) == list(range(5))
    bench.kill(dead)
    bench.mbox.reap_skipped(seg, cur)
    bench.ucq.advance_head(seg, MBOX)
    assert not bench.mbox.waiting_in(seg, MBOX, 0)
    assert len(bench.chain(MBOX)) == 1


def test_claim_of_a_living_sender_is_not_cleared_away(bench: Bench) -> None:
    slow, seg = bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    where = claim(bench, slow)
    put(bench, seg, 1)
    get(bench, seg, cur)
    bench.mbox.reap_skipped(seg, cur)
    assert bench.slot_word(where) & 15 == const.CLAIMED


def test_more_dead_claims_than_a_cursor_remembers_hide_nothing(life: Any) -> None:
    bench = Bench(life, geometry=(4, 4, 64, 64, 4, 32, 8))
    seg = bench.actor()
    dead = [bench.actor() for _ in range(const.SKIP_ASK + 5)]
    for actor in dead:
        claim(bench, actor)
        bench.kill(actor)
    put(bench, seg, 1, 2)
    assert get(bench, seg, bench.mbox.Cursor(MBOX)) == [1, 2]


def test_more_stopped_senders_than_a_cursor_remembers_lose_nothing(life: Any) -> None:
    bench = Bench(life, geometry=(4, 4, 64, 64, 4, 32, 8))
    seg = bench.actor()
    stopped = [bench.actor() for _ in range(const.SKIP_ASK + 5)]
    places = [claim(bench, actor) for actor in stopped]
    cur = bench.mbox.Cursor(MBOX)
    put(bench, seg, 1000)
    found = get(bench, seg, cur)
    for i, (actor, where) in enumerate(zip(stopped, places, strict=True)):
        ready(bench, actor, where, i)
    assert bench.mbox.news(seg, cur)
    assert sorted(found + get(bench, seg, cur)) == [*range(len(stopped)), 1000]


# ---- several consumers -----------------------------------------------------------------------------------------------


def test_two_consumers_share_without_repeats(bench: Bench) -> None:
    seg, one, other = bench.actor(), bench.actor(), bench.actor()
    cursors = [(one, bench.mbox.Cursor(MBOX)), (other, bench.mbox.Cursor(MBOX))]
    put(bench, seg, *range(40))
    found: list[list[int]] = [[], []]
    for i in range(40):
        found[i % 2] += get(bench, *cursors[i % 2], 1)
    assert found == [list(range(0, 40, 2)), list(range(1, 40, 2))]
    assert get(bench, *cursors[0]) == get(bench, *cursors[1]) == []


def test_slow_consumer_holds_its_message_only(bench: Bench) -> None:
    seg, slow, quick = bench.actor(), bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    put(bench, seg, *range(10))
    assert bench.mbox.take(slow, cur)
    assert get(bench, quick, bench.mbox.Cursor(MBOX)) == list(range(1, 10))


def test_cursor_on_a_recycled_page_finds_the_way_back(bench: Bench) -> None:
    seg, lazy, busy = bench.actor(), bench.actor(), bench.actor()
    cur, other = bench.mbox.Cursor(MBOX), bench.mbox.Cursor(MBOX)
    put(bench, seg, 0, 1)
    assert get(bench, lazy, cur, 1) == [0]
    for i in range(30):
        put(bench, seg, i)
        get(bench, busy, other)
    put(bench, seg, 99)
    assert bench.mbox.news(lazy, cur)
    assert get(bench, lazy, cur) == [99]


# ---- consumers that die ----------------------------------------------------------------------------------------------


def test_message_of_a_dead_consumer_is_delivered_again(bench: Bench) -> None:
    seg, dead, other = bench.actor(), bench.actor(), bench.actor()
    resting = bench.mbox.Cursor(MBOX)
    put(bench, seg, 0, 1, 2)
    bench.mbox.take(dead, bench.mbox.Cursor(MBOX))
    assert get(bench, other, resting) == [1, 2]
    bench.kill(dead)
    assert bench.mbox.recover_mbox(other, MBOX) == 1
    assert bench.mbox.news(other, resting)
    assert get(bench, other, resting) == [0]


def test_message_of_a_living_consumer_is_not_delivered_again(bench: Bench) -> None:
    seg, slow, other = bench.actor(), bench.actor(), bench.actor()
    put(bench, seg, 0)
    bench.mbox.take(slow, bench.mbox.Cursor(MBOX))
    assert bench.mbox.recover_mbox(other, MBOX) == 0
    assert get(bench, other, bench.mbox.Cursor(MBOX)) == []


def test_deliveries_are_counted_up_to_fifteen(bench: Bench) -> None:
    seg = bench.actor()
    put(bench, seg, 0)
    counts = []
    for _ in range(18):
        taker = bench.actor()
        at = bench.mbox.take(taker, bench.mbox.Cursor(MBOX))
        counts.append(bench.get(at) >> 4 & 15)
        bench.kill(taker)
        assert bench.mbox.recover_mbox(seg, MBOX) == 1
    assert counts == [*range(16), 15, 15]


def test_rescan_outlives_the_death_of_who_recovers(step_life: StepLife) -> None:
    """The recovering actor dies at any access; another one recovers after it: a resting consumer still finds it."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, dead, first, other = (bench.actor() for _ in range(4))
        resting = bench.mbox.Cursor(MBOX)
        put(bench, seg, *range(6))
        bench.mbox.take(dead, bench.mbox.Cursor(MBOX))
        get(bench, other, resting)
        bench.kill(dead)
        died = step_life.dies(n, lambda bench=bench, first=first: bench.mbox.recover_mbox(first, MBOX))
        bench.kill(first)
        bench.mbox.recover_mbox(other, MBOX)
        assert get(bench, other, resting) == [0], f"dead before access {n}"
        if not died:
            break
    assert n > 10


def test_recovery_is_not_led_astray_by_recycled_pages(step_life: StepLife) -> None:
    for n in range(1000):
        bench = Bench(step_life)
        seg, dead, watcher, other = (bench.actor() for _ in range(4))
        put(bench, seg, *range(10))
        cur, theirs = bench.mbox.Cursor(MBOX), bench.mbox.Cursor(MBOX)
        for _ in range(8):
            assert bench.mbox.take(other, cur)
            where = cur.taken
        bench.mbox.take(dead, theirs)
        bench.kill(dead)
        first = bench.layout.place(where & const.PAGE_MASK, 0, where >> 32)

        def meanwhile(bench: Bench = bench, other: Any = other) -> None:
            for taken in list(bench.walk(MBOX))[:8]:
                bench.mbox.put_done(other, bench.mbox.Cursor(MBOX), taken)
            bench.ucq.advance_head(other, MBOX)
            put(bench, other, *range(5), mbox=0)

        more = step_life.interrupted(n, lambda bench=bench, w=watcher: bench.mbox.recover_mbox(w, MBOX), meanwhile)
        if not more:
            break
        assert first
        assert get(bench, other, bench.mbox.Cursor(MBOX)) == [8, 9], f"at access {n}"
    assert n > 10


# ---- drains ----------------------------------------------------------------------------------------------------------


def test_waiting_in_knows_what_is_before_a_place(bench: Bench) -> None:
    seg = bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    put(bench, seg, *range(6))
    end = bench.mbox.mbox_end(seg, MBOX)
    put(bench, seg, *range(6, 12))
    assert bench.mbox.waiting_in(seg, MBOX, end)
    get(bench, seg, cur, 5)
    assert bench.mbox.waiting_in(seg, MBOX, end)
    get(bench, seg, cur, 1)
    assert not bench.mbox.waiting_in(seg, MBOX, end)
    assert bench.mbox.waiting_in(seg, MBOX, 0)
    get(bench, seg, cur)
    assert not bench.mbox.waiting_in(seg, MBOX, 0)


def test_drain_does_not_wait_for_a_send_that_has_not_returned(bench: Bench) -> None:
    seg, stopped = bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    put(bench, seg, 0)
    bench.ucq.claim_slot(stopped, MBOX)
    put(bench, seg, *range(1, 7))
    end = bench.mbox.mbox_end(seg, MBOX)
    get(bench, seg, cur, 6)
    assert bench.mbox.waiting_in(seg, MBOX, end)
    get(bench, seg, cur, 1)
    assert not bench.mbox.waiting_in(seg, MBOX, end)
    assert bench.mbox.waiting_in(seg, MBOX, 0)


def test_message_in_a_handlers_hand_is_waiting(bench: Bench) -> None:
    seg = bench.actor()
    put(bench, seg, 0)
    bench.mbox.take(seg, bench.mbox.Cursor(MBOX))
    assert bench.mbox.waiting_in(seg, MBOX, 0)


def test_end_of_an_unused_mailbox_is_nowhere(bench: Bench) -> None:
    assert bench.mbox.mbox_end(bench.actor(), MBOX) == 0
    assert not bench.mbox.waiting_in(bench.actor(), MBOX, 0)


@pytest.mark.parametrize("behind", [1, 4, 5, 9])
def test_end_is_found_behind_a_lagging_tail_hint(bench: Bench, behind: int) -> None:
    seg = bench.actor()
    put(bench, seg, *range(4))
    tail = bench.layout.mbox_at(bench.at, MBOX) + const.MB_TAIL
    lagging = bench.get(tail)
    put(bench, seg, *range(4, 4 + behind))
    end = bench.mbox.mbox_end(seg, MBOX)
    bench.set(tail, lagging)
    assert bench.mbox.mbox_end(seg, MBOX) == end
    get(bench, seg, bench.mbox.Cursor(MBOX), 3 + behind)
    assert bench.mbox.waiting_in(seg, MBOX, end)


def test_end_is_found_when_the_tail_hint_is_of_another_mailbox(bench: Bench) -> None:
    seg = bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    tail = bench.layout.mbox_at(bench.at, MBOX) + const.MB_TAIL
    put(bench, seg, 0)
    stale = bench.get(tail)
    put(bench, seg, *range(1, 6))
    get(bench, seg, cur)
    put(bench, seg, 100, 101, mbox=0)
    assert stale & const.PAGE_MASK in bench.chain(0)
    put(bench, seg, 6, 7)
    bench.set(tail, stale)
    end = bench.mbox.mbox_end(seg, MBOX)
    assert bench.mbox.waiting_in(seg, MBOX, end)
    assert get(bench, seg, cur) == [6, 7]
    assert not bench.mbox.waiting_in(seg, MBOX, end)


# ---- every death, every meeting --------------------------------------------------------------------------------------


def after_all(bench: Bench, by: Any) -> list[int]:
    """What a watcher and a consumer do after a death; what was delivered."""
    bench.mbox.recover_mbox(by, MBOX)
    found = get(bench, by, bench.mbox.Cursor(MBOX))
    bench.ucq.advance_head(by, MBOX)
    bench.pages.scavenge_pages(by)
    assert not bench.pages_lost()
    return found


@pytest.mark.parametrize("before", [0, 3, 4])
def test_sender_may_die_at_any_access(step_life: StepLife, before: int) -> None:
    """G1, G3: its messages are there whole or not at all, those of others all, in order, and no page is lost."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, other = bench.actor(), bench.actor()
        put(bench, other, *range(before))
        died = step_life.dies(n, lambda bench=bench, seg=seg: put(bench, seg, 100, 101))
        bench.kill(seg)
        put(bench, other, 50)
        found = after_all(bench, other)
        assert [arg for arg in found if arg < 100] == [*range(before), 50]
        assert [arg for arg in found if arg >= 100] in ([], [100], [100, 101])
        assert died or found == [*range(before), 100, 101, 50]
        if not died:
            break
    assert n > 20


def test_consumer_may_die_at_any_access(step_life: StepLife) -> None:
    """G1, G4: everything is delivered; twice at most what was in hand."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, other = bench.actor(), bench.actor()
        put(bench, other, *range(10))
        seen: list[int] = []

        def consume(bench: Bench = bench, seg: Any = seg, seen: list[int] = seen) -> None:
            cur = bench.mbox.Cursor(MBOX)
            while at := bench.mbox.take(seg, cur):
                seen.append(bench.get(at + const.SL_ARG1, 2))
                bench.mbox.put_done(seg, cur, cur.taken)
            bench.ucq.advance_head(seg, MBOX)

        died = step_life.dies(n, consume)
        bench.kill(seg)
        found = after_all(bench, other)
        assert sorted(set(seen + found)) == list(range(10)), f"dead before access {n}"
        assert len(seen + found) <= 11
        if not died:
            break
    assert n > 50


@pytest.mark.parametrize("before", [0, 3, 4, 5])
def test_senders_may_meet_at_any_access(step_life: StepLife, before: int) -> None:
    for n in range(1000):
        bench = Bench(step_life)
        one, other = bench.actor(), bench.actor()
        put(bench, one, *range(before))
        more = step_life.interrupted(
            n,
            lambda bench=bench, one=one: put(bench, one, 100, 101),
            lambda bench=bench, o=other: put(bench, o, 200, 201),
        )
        found = get(bench, one, bench.mbox.Cursor(MBOX))
        assert sorted(found) == [*range(before), 100, 101] + ([200, 201] if more else []), f"at access {n}"
        assert [arg for arg in found if arg < 200] == [*range(before), 100, 101]
        assert not bench.pages_lost()
        if not more:
            break
    assert n > 20


def test_consumers_may_meet_at_any_access(step_life: StepLife) -> None:
    """G5: without a death each is taken once; two consumers and a sender between any two accesses of a third."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, one, other = bench.actor(), bench.actor(), bench.actor()
        cur, theirs = bench.mbox.Cursor(MBOX), bench.mbox.Cursor(MBOX)
        put(bench, seg, *range(9))
        found: list[int] = []

        def meanwhile(
            bench: Bench = bench, seg: Any = seg, other: Any = other, theirs: Any = theirs, found: list[int] = found
        ) -> None:
            found.extend(get(bench, other, theirs, 6))
            put(bench, seg, *range(9, 14))
            bench.ucq.advance_head(other, MBOX)
            found.extend(get(bench, other, theirs))
            bench.ucq.advance_head(other, MBOX)
            put(bench, seg, 100, 101, mbox=0)

        more = step_life.interrupted(
            n, lambda bench=bench, one=one, cur=cur, found=found: found.extend(get(bench, one, cur)), meanwhile
        )
        put(bench, seg, 14)
        assert bench.mbox.news(one, cur), f"at access {n}"
        found += get(bench, one, cur)
        assert sorted(found) == ([*range(15)] if more else [*range(9), 14]), f"at access {n}"
        assert not bench.pages_lost()
        if not more:
            break
    assert n > 50


def test_take_against_a_sender_at_any_access_leaves_no_message_unseen(step_life: StepLife) -> None:
    """The consumer finds nothing more; then the watched word and the slots passed over tell of what came meanwhile."""
    for n in range(1000):
        bench = Bench(step_life)
        seg, other = bench.actor(), bench.actor()
        cur = bench.mbox.Cursor(MBOX)
        put(bench, seg, *range(3))
        found: list[int] = []
        more = step_life.interrupted(
            n,
            lambda bench=bench, other=other, cur=cur, found=found: found.extend(get(bench, other, cur)),
            lambda bench=bench, seg=seg: put(bench, seg, 3, 4),
        )
        assert len(found) == (5 if more else 3) or bench.mbox.news(other, cur), f"at access {n}"
        if not more:
            break
    assert n > 10


def test_random_work_of_many_loses_nothing(life: Any) -> None:
    """Senders that stop in the middle, consumers that take and finish in any order, one small pool."""
    rng = random.Random(7)
    bench = Bench(life)
    senders = [bench.actor() for _ in range(3)]
    consumers = [(bench.actor(), bench.mbox.Cursor(MBOX)) for _ in range(3)]
    held: list[tuple[Any, Any, int]] = []
    claims: dict[int, int] = {}
    sent: list[int] = []
    got: list[int] = []
    for step in range(5000):
        act = rng.randrange(5)
        i = rng.randrange(3)
        if act == 0 and i not in claims:
            if where := bench.ucq.claim_slot(senders[i], MBOX):
                claims[i] = where
        elif act == 1 and i in claims:
            ready(bench, senders[i], claims.pop(i), step)
            sent.append(step)
        elif act == 2 and i not in claims:
            if bench.ucq.send_ucq_msg(senders[i], MBOX, bench.message(step)) == const.OK:
                sent.append(step)
        elif act == 3:
            seg, cur = consumers[i]
            if at := bench.mbox.take(seg, cur):
                got.append(bench.get(at + const.SL_ARG1, 2))
                held.append((seg, cur, cur.taken))
        elif held:
            bench.mbox.put_done(*held.pop(rng.randrange(len(held))))
    for i, where in claims.items():
        ready(bench, senders[i], where, 5000 + i)
        sent.append(5000 + i)
    for taken in held:
        bench.mbox.put_done(*taken)
    for seg, cur in consumers:
        got += get(bench, seg, cur)
    assert sorted(got) == sorted(sent)
    assert len(sent) > 500
    bench.ucq.advance_head(senders[0], MBOX)
    assert not bench.pages_lost()


# ---- hostile contents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [5 | (1 << 32), 0xFFFFF, 17, 2**64 - 1, 1 | (0xFFF << 20) | (1 << 32), 1 | (7 << 32)])
def test_hostile_head_ends_in_peace(bench: Bench, head: int) -> None:
    """A head outside the pool, of a page or generation that is not this mailbox's: nothing is found, and the consumer
    does not believe for ever that there is more."""
    seg = bench.actor()
    put(bench, seg, 1)
    cur = bench.mbox.Cursor(MBOX)
    bench.set(bench.layout.mbox_at(bench.at, MBOX) + const.MB_HEAD, head)
    for _ in range(4):
        if not bench.mbox.news(seg, cur):
            break
        get(bench, seg, cur)
    else:
        raise AssertionError("the consumer looks again for ever")
    bench.ucq.advance_head(seg, MBOX)
    bench.ucq.send_ucq_msg(seg, MBOX, bench.message(2))


def test_circle_of_pages_ends_in_peace(bench: Bench) -> None:
    seg = bench.actor()
    put(bench, seg, *range(8))
    first, second = bench.chain(MBOX)
    head = bench.get(bench.layout.mbox_at(bench.at, MBOX) + const.MB_HEAD)
    bench.set(bench.layout.page_at(bench.at, second) + const.PG_NEXT, head)
    cur = bench.mbox.Cursor(MBOX)
    assert len(get(bench, seg, cur)) == 8
    for _ in range(4):
        if not bench.mbox.news(seg, cur):
            break
        get(bench, seg, cur)
    else:
        raise AssertionError("the consumer looks again for ever")
    assert bench.ucq.send_ucq_msg(seg, MBOX, bench.message()) != const.OK
    bench.mbox.recover_mbox(seg, MBOX)
    bench.pages.scavenge_pages(seg)
    assert first
