"""Pages leave the middle of a mailbox's chain: one slot that stays unfinished for long keeps one page, not all behind it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from protocol import Bench, StepLife
from upcall.kern import const

MBOX = 9
OTHER = 0
SLOTS = 4
"""In a page of the usual bench, which has 16 pages."""


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
        bench.mbox.put_done(seg, cur, cur.taken)
    return found


def ready(bench: Bench, seg: Any, where: int, arg: int) -> None:
    """A sender that was stopped in its claim goes on."""
    at = bench.ucq.slot_at(seg, where)
    bench.ucq.fill_slot(seg, at, bench.message(arg))
    bench.set(at, bench.layout.word(const.READY, where >> 32, seg.me))


def link(bench: Bench, page: int) -> int:
    return bench.get(bench.layout.page_at(bench.at, page) + const.PG_NEXT)


class Stuck:
    """A mailbox whose first slot somebody who does not move has in hand, with so many pages of finished messages behind it,
    none given back, and then one with two messages that wait. `between`: one more such slot, in the middle of them."""

    def __init__(self, bench: Bench, pages: int = 4, *, between: bool = False) -> None:
        self.bench = bench
        self.still, self.seg = bench.actor(), bench.actor()
        self.hand = bench.mbox.Cursor(MBOX)
        put(bench, self.seg, 50)
        assert bench.mbox.take(self.still, self.hand)
        self.where = self.hand.taken
        self.all = pages * SLOTS - 1
        put(bench, self.seg, *range(self.all))
        cur, taken = bench.mbox.Cursor(MBOX), []
        for _ in range(self.all):
            assert bench.mbox.take(self.seg, cur)
            taken.append(cur.taken)
        self.gone_on = False
        self.second: Any = None
        if between:
            self.second, self.second_at = bench.actor(), taken.pop(SLOTS + 1)
            hers = bench.layout.word(const.TAKEN, self.second_at >> 32, self.second.me)
            bench.set(bench.ucq.slot_at(bench.at, self.second_at), hers)
        for place in taken:
            bench.mbox.put_done(self.seg, cur, place)
        put(bench, self.seg, 60, 61)
        assert len(bench.chain(MBOX)) == pages + 1

    def go_on(self) -> None:
        """Who did not move does."""
        if self.gone_on:
            return
        self.gone_on = True
        self.bench.mbox.put_done(self.still, self.hand, self.where)
        if self.second:
            self.bench.mbox.put_done(self.second, self.hand, self.second_at)


def settled(bench: Bench, stuck: Stuck, by: Any, *, waits: list[int]) -> None:
    """Afterwards only pages with something unfinished are left, and the last; then all of it comes to its end."""
    bench.pages.scavenge_pages(by)
    assert not bench.pages_lost()
    assert len(bench.chain(MBOX)) <= 2 + bool(stuck.second) + len(waits) // SLOTS
    assert get(bench, by, bench.mbox.Cursor(MBOX)) == waits
    stuck.go_on()
    bench.ucq.tidy_mbox(by, MBOX)
    assert not bench.mbox.waiting_in(by, MBOX, 0)
    assert len(bench.chain(MBOX)) == 1
    assert not bench.pages_lost()


# ---- what others go on with ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_hand", [False, True])
def test_one_that_does_not_move_keeps_one_page(bench: Bench, in_hand: bool) -> None:
    """A sender stopped in its claim, a handler that hangs: many times the pool goes through behind it."""
    still, seg, other = bench.actor(), bench.actor(), bench.actor()
    where = 0
    if in_hand:
        put(bench, seg, 99)
        assert bench.mbox.take(still, bench.mbox.Cursor(MBOX))
    else:
        where = bench.ucq.claim_slot(still, MBOX)
    cur = bench.mbox.Cursor(MBOX)
    for i in range(0, 600, 6):
        put(bench, seg, *range(i, i + 6))
        assert get(bench, other, cur) == list(range(i, i + 6))
        assert len(bench.chain(MBOX)) <= 4
        assert not bench.pages_lost()
    if not in_hand:
        ready(bench, still, where, 77)
        assert bench.mbox.news(other, cur)
        assert get(bench, other, cur) == [77]


def test_each_that_does_not_move_keeps_its_own_page(bench: Bench) -> None:
    seg, other = bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    held = []
    for _ in range(6):
        still = bench.actor()
        held.append((still, bench.ucq.claim_slot(still, MBOX)))
        for _ in range(10):
            put(bench, seg, *range(11))
            assert get(bench, other, cur) == list(range(11))
        assert len(bench.chain(MBOX)) <= 2 + len(held)
    for i in [3, 0, 5, 1, 4, 2]:
        ready(bench, *held[i], i)
        assert get(bench, other, cur) == [i]
        bench.ucq.tidy_mbox(other, MBOX)
        assert not bench.pages_lost()
    assert len(bench.chain(MBOX)) == 1


def test_a_full_pool_finds_the_pages_that_nobody_has_given_back(bench: Bench) -> None:
    """Events of a batch that ended long after its cursor had turned, say: no consumer passes there again."""
    stuck = Stuck(bench, 15)
    put(bench, stuck.seg, 62, 63, 64, 65)
    settled(bench, stuck, bench.actor(), waits=[60, 61, 62, 63, 64, 65])


def test_waiting_for_room_ends_when_a_vcore_yields(bench: Bench) -> None:
    """Whoever sleeps for a page is told of one that became free in the middle."""
    bench.queue(1)
    vc = bench.vcore(0)  # before there is anything to give back: it looks after that when it starts, too
    stuck = Stuck(bench, 15)
    bench.vcore_module.look_at(vc, 1)
    bench.set(bench.at.procinfo + const.PI_POOL_WAITERS, 1, 4)
    bench.idle(vc)
    assert vc.args == [60, 61]
    assert bench.get(bench.at.procinfo + const.PI_POOL_ROOM, 4) > 0
    assert len(bench.chain(MBOX)) == 2
    assert stuck.where & const.PAGE_MASK == bench.chain(MBOX)[0]


@pytest.mark.parametrize("private", [False, True])
def test_own_mail_gives_room_to_who_waits_for_it(bench: Bench, private: bool) -> None:
    box = 1 if private else 0
    seg, still = bench.actor(), bench.actor()
    vc = bench.vcore(0)
    cur, hand = bench.mbox.Cursor(box), bench.mbox.Cursor(box)
    put(bench, seg, *range(9), mbox=box)
    assert bench.mbox.take(still, hand)
    taken = [cur.taken for _ in range(8) if bench.mbox.take(seg, cur)]
    for where in taken:
        bench.mbox.put_done(seg, cur, where)
    assert len(bench.chain(box)) == 3
    bench.set(bench.at.procinfo + const.PI_POOL_WAITERS, 1, 4)
    bench.idle(vc)
    assert len(bench.chain(box)) == 2
    assert bench.get(bench.at.procinfo + const.PI_POOL_ROOM, 4) > 0


def test_the_limit_holds_though_more_pages_than_there_are_have_gone_by(bench: Bench) -> None:
    """Numbers of pages go on rising behind one that does not move: the limit is compared with what waits."""
    still, seg, other = bench.actor(), bench.actor(), bench.actor()
    bench.set(bench.layout.mbox_at(bench.at, MBOX) + const.MB_LIMIT, 3)
    bench.ucq.claim_slot(still, MBOX)
    cur = bench.mbox.Cursor(MBOX)
    for i in range(0, 200, 2):
        put(bench, seg, i, i + 1)
        assert bench.ucq.send_ucq_msg(seg, MBOX, bench.message()) == const.FULL
        assert get(bench, other, cur) == [i, i + 1]


def test_a_drain_waits_for_one_in_hand_though_the_page_of_its_end_is_used_again(bench: Bench) -> None:
    stuck = Stuck(bench)
    end = bench.mbox.mbox_end(stuck.seg, MBOX)
    cur = bench.mbox.Cursor(MBOX)
    for i in range(20):
        put(bench, stuck.seg, i, i)
        get(bench, stuck.seg, cur)
    assert bench.mbox.waiting_in(stuck.seg, MBOX, end)
    put(bench, stuck.seg, 1)
    stuck.go_on()
    assert not bench.mbox.waiting_in(stuck.seg, MBOX, end)
    assert bench.mbox.waiting_in(stuck.seg, MBOX, 0)


def test_a_cursor_on_a_page_that_has_left_finds_the_way_back(bench: Bench) -> None:
    """Its page is used again, first by another mailbox, then by its own, while the head has not moved."""
    stuck = Stuck(bench, 2)
    lazy, busy = bench.mbox.Cursor(MBOX), bench.mbox.Cursor(MBOX)
    assert get(bench, stuck.seg, lazy, 1) == [60]
    head = bench.get(bench.layout.mbox_at(bench.at, MBOX))
    for mbox in (OTHER, MBOX):
        other = bench.mbox.Cursor(mbox)
        for _ in range(20):
            put(bench, stuck.seg, *range(5), mbox=mbox)
            get(bench, stuck.seg, busy)
            get(bench, stuck.seg, other)
        assert bench.mbox.take(stuck.seg, lazy) == 0
        put(bench, stuck.seg, 99)
        assert bench.mbox.news(stuck.seg, lazy)
        assert get(bench, stuck.seg, lazy) == [99]
    assert bench.get(bench.layout.mbox_at(bench.at, MBOX)) == head


def test_what_a_dead_one_had_in_hand_is_found_behind_and_before(bench: Bench) -> None:
    """Both the head and a page in the middle are held by vcores that then die."""
    stuck = Stuck(bench, between=True)
    resting = bench.mbox.Cursor(MBOX)
    assert get(bench, stuck.seg, resting) == [60, 61]
    bench.pages.scavenge_pages(stuck.seg)
    assert len(bench.chain(MBOX)) == 3
    for dead in (stuck.second, stuck.still):
        bench.kill(dead)
        assert bench.mbox.recover_mbox(stuck.seg, MBOX) == 1
        assert bench.mbox.news(stuck.seg, resting)
        assert len(get(bench, stuck.seg, resting)) == 1
    bench.ucq.tidy_mbox(stuck.seg, MBOX)
    assert len(bench.chain(MBOX)) == 1
    assert not bench.pages_lost()


def test_letters_that_are_kept_keep_their_own_page_only(bench: Bench) -> None:
    """The first dead letter is kept for days; others come and are thrown away, many times the pool."""
    seg = bench.actor()
    box = bench.at.nr_mboxes - 1
    put(bench, seg, 1, mbox=box)
    for _ in range(50):
        put(bench, seg, *range(5), mbox=box)
        bench.mbox.recover_mbox(seg, box)  # as whoever discards letters does
        for where in list(bench.walk(box))[:0:-1]:
            if bench.slot_word(where) & 15 == const.READY:
                assert bench.dead.discard_letter(seg, where) == const.OK
        assert len(bench.chain(box)) <= 3
    assert bench.waiting(box) == [1]
    assert not bench.pages_lost()


# ---- many stopped senders --------------------------------------------------------------------------------------------


def test_hundreds_of_stopped_senders_hide_nothing(life: Any) -> None:
    """G6 too: each goes on with the message it was at, then sends one more."""
    bench = Bench(life, geometry=(2, 2, 64, 400, SLOTS, 128, 1))
    mbox = bench.event.queue_mbox(bench.at, 0)
    seg, other = bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(mbox)
    stopped = []
    for i in range(390):
        still = bench.actor()
        stopped.append((still, bench.ucq.claim_slot(still, mbox)))
        if i % 30 == 0:
            put(bench, seg, 1000 + i, mbox=mbox)
            assert get(bench, other, cur) == [1000 + i]
    fresh = bench.mbox.Cursor(mbox)
    put(bench, seg, 5000, mbox=mbox)
    assert get(bench, other, fresh) == [5000]
    order = list(enumerate(stopped))
    random.Random(1).shuffle(order)
    for i, (still, where) in order[:100]:
        ready(bench, still, where, i)
        assert bench.mbox.news(other, cur)
        put(bench, still, 2000 + i, mbox=mbox)
        found = get(bench, other, cur)
        assert found == [i, 2000 + i]


def test_claims_that_the_dead_left_are_settled_when_they_get_many(bench: Bench) -> None:
    seg, other = bench.actor(), bench.actor()
    dead = [bench.actor() for _ in range(40)]
    for i, one in enumerate(dead):
        # Attach slots are used again and again: of each but the last few claims the owner is dead.
        assert bench.ucq.claim_slot(one, MBOX), i
    for one in dead:
        bench.kill(one)
    put(bench, seg, 1)
    assert get(bench, other, bench.mbox.Cursor(MBOX)) == [1]
    claimed = sum(bench.slot_word(where) & 15 == const.CLAIMED for where in bench.walk(MBOX))
    assert claimed <= 40 - const.SKIP_ASK


@pytest.mark.parametrize("stopped", [const.SKIP_ASK - 1, const.SKIP_ASK, 2 * const.SKIP_ASK])
def test_a_consumer_does_not_ask_again_and_again_who_of_the_stopped_lives(
    lives: Any, monkeypatch: pytest.MonkeyPatch, stopped: int
) -> None:
    """Each question is a system call: the next come with twice as many slots to ask about."""
    life = lives("interpreted")
    bench = Bench(life, geometry=(4, 4, 64, 100, SLOTS, 64, 8))
    asked: list[int] = []
    alive = life.kern.pages.alive

    def ask(world: Any, name: int) -> Any:
        asked.append(name)
        return alive(world, name)

    monkeypatch.setattr(life.kern.pages, "alive", ask)
    seg, slow, other = bench.actor(), bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(MBOX)
    for _ in range(stopped):
        assert bench.ucq.claim_slot(bench.actor(), MBOX)
    put(bench, seg, 1)
    assert get(bench, other, cur) == [1]
    for i in range(50):
        where = bench.ucq.claim_slot(slow, MBOX)
        put(bench, seg, i)
        assert get(bench, other, cur) == [i]
        ready(bench, slow, where, 100 + i)
        assert get(bench, other, cur) == [100 + i]
    assert len(asked) <= 2 * stopped + 2


# ---- every death, every meeting --------------------------------------------------------------------------------------


UNLINKERS: dict[str, Callable[[Bench, Any], object]] = {
    "tidy": lambda bench, seg: bench.ucq.tidy_mbox(seg, MBOX),
    "scavenge": lambda bench, seg: bench.pages.scavenge_pages(seg),
    "consume": lambda bench, seg: get(bench, seg, bench.mbox.Cursor(MBOX)),
}


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("how", UNLINKERS)
def test_unlinker_may_die_at_any_access(step_life: StepLife, how: str, between: bool) -> None:
    """No page is lost, none is in two places, and who comes next finishes it."""
    for n in range(3000):
        bench = Bench(step_life)
        stuck = Stuck(bench, 3, between=between)
        seg, other = bench.actor(), bench.actor()
        died = step_life.dies(n, lambda bench=bench, seg=seg: UNLINKERS[how](bench, seg))
        bench.kill(seg)
        bench.mbox.recover_mbox(other, MBOX)
        waits = [arg for arg in (60, 61) if arg in bench.waiting(MBOX)]
        settled(bench, stuck, other, waits=waits)
        if not died:
            break
    assert n > 20


def append(bench: Bench, stuck: Stuck, seg: Any) -> list[int]:
    put(bench, seg, 70, 71, 72)
    return [70, 71, 72]


def unlink(bench: Bench, stuck: Stuck, seg: Any) -> list[int]:
    bench.pages.scavenge_pages(seg)
    return []


def pass_on(bench: Bench, stuck: Stuck, seg: Any) -> list[int]:
    """Whoever stood at the head goes on, the head passes, and the pages serve another mailbox."""
    stuck.go_on()
    bench.ucq.advance_head(seg, MBOX)
    put(bench, seg, *range(100, 113), mbox=OTHER)
    return []


def use_again(bench: Bench, stuck: Stuck, seg: Any) -> list[int]:
    """The pages are taken out, serve another mailbox, and then this one again."""
    bench.pages.scavenge_pages(seg)
    put(bench, seg, *range(100, 123), mbox=OTHER)
    get(bench, seg, bench.mbox.Cursor(OTHER))
    put(bench, seg, *range(70, 84))
    return list(range(70, 84))


def abandon(bench: Bench, stuck: Stuck, seg: Any) -> list[int]:
    """The pages are taken out, and claimed and given back by somebody who lost the race to link them."""
    bench.pages.scavenge_pages(seg)
    pages = [bench.pages.alloc_page(seg) for _ in range(13)]
    for page in pages:
        gen = bench.pages.page_generation(seg, page)
        bench.set(bench.layout.page_at(bench.at, page) + const.PG_NEXT, bench.layout.place(0, 0, gen))
        bench.pages.abandon_page(seg, page, gen)
    return []


def first_goes(bench: Bench, stuck: Stuck, seg: Any) -> None:
    """Whoever stood in the first page goes on, the head passes that page, and it serves another mailbox."""
    bench.mbox.put_done(stuck.still, stuck.hand, stuck.where)
    bench.ucq.advance_head(seg, MBOX)
    put(bench, seg, *range(100, 105), mbox=OTHER)


@pytest.mark.parametrize("how", ["tidy", "scavenge"])
def test_no_finished_page_stays_though_the_first_one_is_used_again_under_the_walk(
    step_life: StepLife, how: str
) -> None:
    """The walk once ended there, at whatever mailbox's end that page had, and what was finished behind it stayed."""
    for n in range(3000):
        bench = Bench(step_life)
        stuck = Stuck(bench, 3, between=True)
        seg, other = bench.actor(), bench.actor()
        more = step_life.interrupted(
            n,
            lambda bench=bench, seg=seg: UNLINKERS[how](bench, seg),
            lambda bench=bench, stuck=stuck, other=other: first_goes(bench, stuck, other),
        )
        if not more:
            break
        assert len(bench.chain(MBOX)) == 2, f"at access {n}"
        assert not bench.pages_lost(), f"at access {n}"
    assert n > 20


MEETINGS = [append, unlink, pass_on, use_again, abandon]


@pytest.mark.parametrize("other_does", MEETINGS)
@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("how", ["tidy", "scavenge"])
def test_unlinker_may_meet_others_at_any_access(
    step_life: StepLife, how: str, between: bool, other_does: Callable[[Bench, Stuck, Any], list[int]]
) -> None:
    for n in range(3000):
        bench = Bench(step_life)
        stuck = Stuck(bench, 3, between=between)
        seg, other = bench.actor(), bench.actor()
        waits = [60, 61]
        more = step_life.interrupted(
            n,
            lambda bench=bench, seg=seg: UNLINKERS[how](bench, seg),
            lambda bench=bench, stuck=stuck, other=other, waits=waits: waits.extend(other_does(bench, stuck, other)),
        )
        assert not bench.pages_lost(), f"at access {n}"
        assert not any(link(bench, page) & const.LINK_LEAVING for page in bench.chain(OTHER))
        settle_all(bench, stuck, other, waits)
        if not more:
            break
    assert n > 20


def settle_all(bench: Bench, stuck: Stuck, by: Any, waits: list[int]) -> None:
    bench.pages.scavenge_pages(by)
    assert not bench.pages_lost()
    assert get(bench, by, bench.mbox.Cursor(MBOX)) == waits
    stuck.go_on()
    for mbox in (MBOX, OTHER):
        get(bench, by, bench.mbox.Cursor(mbox))
        bench.ucq.tidy_mbox(by, mbox)
        assert len(bench.chain(mbox)) <= 1
    assert not bench.pages_lost()


@pytest.mark.parametrize("other_does", MEETINGS)
@pytest.mark.parametrize("who", ["producer", "consumer", "drainer", "limit", "recoverer"])
def test_walks_meet_pages_that_leave_at_any_access(
    step_life: StepLife, who: str, other_does: Callable[[Bench, Stuck, Any], list[int]]
) -> None:
    """Whoever walks the chain while its pages are taken out, recycled, given to another: loses nothing and claims nothing of
    another mailbox."""
    for n in range(3000):
        bench = Bench(step_life)
        stuck = Stuck(bench, 3, between=True)
        seg, other = bench.actor(), bench.actor()
        if who == "producer":  # its hint lags: it walks from a page that leaves
            third = bench.chain(MBOX)[2]
            lagging = bench.layout.place(third, 0, bench.pages.page_generation(seg, third))
            bench.set(bench.layout.mbox_at(bench.at, MBOX) + const.MB_TAIL, lagging)
        cur = bench.mbox.Cursor(MBOX)
        got: list[int] = []
        added: list[int] = []

        def walk(bench: Bench = bench, seg: Any = seg, cur: Any = cur, got: list[int] = got) -> None:
            if who == "producer":
                put(bench, seg, 90)
            elif who == "consumer":
                got.extend(get(bench, seg, cur))
            elif who == "drainer":
                end = bench.mbox.mbox_end(seg, MBOX)
                assert bench.mbox.waiting_in(seg, MBOX, end)  # 60 and 61
            elif who == "limit":
                assert bench.ucq.count_open(seg, MBOX, 0, 100) >= 2
            else:
                assert bench.mbox.recover_mbox(seg, MBOX) == 0

        more = step_life.interrupted(
            n, walk, lambda bench=bench, stuck=stuck, o=other, added=added: added.extend(other_does(bench, stuck, o))
        )
        assert not bench.pages_lost(), f"at access {n}"
        if who == "consumer" and more:
            assert len(got) == len(added) + 2 or bench.mbox.news(seg, cur), f"at access {n}: {got}"
            got += get(bench, seg, cur)
        got += get(bench, other, bench.mbox.Cursor(MBOX))
        assert sorted(got) == sorted([60, 61, *added, *([90] if who == "producer" else [])]), f"at access {n}"
        settle_all(bench, stuck, other, [])
        if not more:
            break
    assert n > 8


def test_random_work_around_those_who_do_not_move_loses_nothing(life: Any) -> None:
    """Senders and consumers that stop for long in the middle, now and then, in one small pool: what the others sent in the
    meantime is many times the pool, and no send finds it full."""
    rng = random.Random(11)
    bench = Bench(life, geometry=(4, 4, 64, 64, SLOTS, 16, 8))
    actors = [bench.actor() for _ in range(12)]
    cursors = [bench.mbox.Cursor(MBOX) for _ in range(12)]
    held: dict[int, Callable[[], None]] = {}
    sent: list[int] = []
    got: list[int] = []

    def finish(i: int, where: int, number: int) -> Callable[[], None]:
        def done() -> None:
            ready(bench, actors[i], where, number)
            sent.append(number)

        return done

    for step in range(6000):
        i = rng.randrange(12)
        if i in held:
            if rng.random() < 0.02:
                held.pop(i)()
            continue
        act = rng.random()
        if act < 0.01 and len(held) < 6 and (where := bench.ucq.claim_slot(actors[i], MBOX)):
            held[i] = finish(i, where, step)
        elif act < 0.02 and len(held) < 6 and (at := bench.mbox.take(actors[i], cursors[i])):
            got.append(bench.get(at + const.SL_ARG1, 2))
            taken = cursors[i].taken
            held[i] = lambda i=i, taken=taken: bench.mbox.put_done(actors[i], cursors[i], taken)
        elif act < 0.5 and len(sent) - len(got) < 10:
            put(bench, actors[i], step)
            sent.append(step)
        elif found := get(bench, actors[i], cursors[i], 1):
            got += found
    for done in held.values():
        done()
    for i in range(12):
        got += get(bench, actors[i], cursors[i])
    assert sorted(got) == sorted(sent)
    assert len(sent) > 1000
    bench.ucq.tidy_mbox(actors[0], MBOX)
    assert len(bench.chain(MBOX)) == 1
    assert not bench.pages_lost()


# ---- hostile contents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_trip", [[1], [1, 2], [2, 1], [1, 2, 0], [0], [2, 2]])
def test_a_circle_of_marked_links_ends_in_peace(bench: Bench, round_trip: list[int]) -> None:
    """Pages behind the first that are all leaving, and lead back to each other: the vcore sleeps in the end."""
    stuck = Stuck(bench, 3)
    chain = bench.chain(MBOX)
    for page, to in zip(chain[1:], round_trip, strict=False):
        gen = bench.pages.page_generation(stuck.seg, chain[to])
        at = bench.layout.page_at(bench.at, page) + const.PG_NEXT
        bench.set(at, bench.layout.place(chain[to], 0, gen) | const.LINK_LEAVING)
    bench.queue(1)
    vc = bench.vcore(0)
    bench.vcore_module.look_at(vc, 1)
    bench.idle(vc)
    bench.pages.scavenge_pages(stuck.seg)
    bench.ucq.send_ucq_msg(stuck.seg, MBOX, bench.message())
    bench.mbox.recover_mbox(stuck.seg, MBOX)
