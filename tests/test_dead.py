"""What becomes of events that vcores have died with: verdicts, dead letters, and those who re-send them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol import TYPE, USUAL, Bench, StepLife
from upcall.kern import const

LARGE, HUGE = 700, 2 * const.SPAN_SIZE
"""Payloads that need a small block, and a run of spans."""


@pytest.fixture
def bench(life: Any) -> Bench:
    return Bench(life)


def dead_mbox(bench: Bench) -> int:
    return int(bench.layout.dead_mbox(bench.at))


def content(size: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(size))


def post(bench: Bench, sender: Any, mbox: int, arg1: int = 1, size: int = 0, queue: int = 1) -> int:
    """A message in a mailbox, with a payload; its place."""
    msg = bench.message(arg1, queue=queue)
    if size > const.INLINE_MAX:
        msg.length = size
        msg.block = bench.arena.alloc_block(sender, size)
        assert msg.block
        at = bench.arena.block_data(sender, msg.block, bench.arena.block_capacity(sender, msg.block))
        bench.buffer[at : at + size] = content(size)
    assert bench.ucq.send_ucq_msg(sender, mbox, msg) == const.OK
    where = list(bench.walk(mbox))[-1]
    at = bench.ucq.slot_at(bench.at, where)
    if 0 < size <= const.INLINE_MAX:
        bench.set(at + const.SL_LEN, size, 4)
        bench.buffer[at + const.SL_INLINE : at + const.SL_INLINE + size] = content(size)
    return where


def take(bench: Bench, seg: Any, mbox: int, deaths: int) -> tuple[int, int]:
    """Takes the next message of a mailbox, as if so many vcores had died with it: its place and its slot."""
    cur = bench.mbox.Cursor(mbox)
    at = bench.mbox.take(seg, cur)
    assert at
    bench.set(at, bench.get(at) | deaths << 4)
    return cur.taken, at


def lay_aside(bench: Bench, seg: Any, mbox: int, deaths: int = 4) -> None:
    """What a vcore does with a message that is not to be delivered again."""
    where, at = take(bench, seg, mbox, deaths)
    assert bench.dead.post_letter(seg, mbox, at, bench.layout.Msg()) == const.OK
    bench.dead.settle_message(seg, mbox, where)


def letter(bench: Bench, sender: Any, vc: Any, arg1: int = 1, size: int = 0, deaths: int = 4) -> int:
    """A dead letter of queue 0; its place."""
    mbox = bench.event.queue_mbox(bench.at, 0)
    post(bench, sender, mbox, arg1, size)
    lay_aside(bench, vc, mbox, deaths)
    return list(bench.walk(dead_mbox(bench)))[-1]


def payload(bench: Bench, where: int) -> bytes:
    at = bench.ucq.slot_at(bench.at, where)
    size = bench.get(at + const.SL_LEN, 4)
    start = at + const.SL_INLINE
    if size > const.INLINE_MAX:
        block = bench.get(at + const.SL_BLOCK)
        start = bench.arena.block_data(bench.at, block, bench.arena.block_capacity(bench.at, block))
    return bytes(bench.buffer[start : start + size])


def fill_pages(bench: Bench, seg: Any, mbox: int) -> None:
    """No page is left, and no slot in those that a mailbox has."""
    while bench.ucq.send_ucq_msg(seg, mbox, bench.message()) == const.OK:
        pass


# ---- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "last"), [(0, 0), (1, 1), (3, 3), (14, 14)])
def test_redelivered_so_often_and_then_a_dead_letter(bench: Bench, most: int, last: int) -> None:
    bench.queue()
    at = bench.layout.evq_at(bench.at, 0)
    bench.set(at + const.EVQ_MAX_REDELIVERIES, most, 4)
    verdicts = [bench.dead.verdict(bench.at, 1, deaths) for deaths in range(1, 16)]
    assert verdicts == [const.ON_DEATH_REDELIVER] * last + [const.ON_DEATH_DEAD_LETTER] * (15 - last)


@pytest.mark.parametrize("policy", [const.ON_DEATH_DEAD_LETTER, const.ON_DEATH_REPORT])
def test_not_redelivered_at_all(bench: Bench, policy: int) -> None:
    bench.queue()
    bench.set(bench.layout.evq_at(bench.at, 0) + const.EVQ_ON_DEATH, policy, 4)
    assert {bench.dead.verdict(bench.at, 1, deaths) for deaths in range(1, 16)} == {policy}


@pytest.mark.parametrize("queue", [0, 5, 1000, 0xFFFF])
def test_mail_to_a_vcore_and_of_no_queue_is_redelivered_as_usual(bench: Bench, queue: int) -> None:
    verdict = bench.dead.verdict
    assert verdict(bench.at, queue, const.REDELIVERIES_USUAL) == const.ON_DEATH_REDELIVER
    assert verdict(bench.at, queue, const.REDELIVERIES_USUAL + 1) == const.ON_DEATH_DEAD_LETTER


def test_policy_of_no_number_redelivers(bench: Bench) -> None:
    bench.queue()
    bench.set(bench.layout.evq_at(bench.at, 0) + const.EVQ_ON_DEATH, 77, 4)
    assert bench.dead.verdict(bench.at, 1, 1) == const.ON_DEATH_REDELIVER


# ---- counting deaths -------------------------------------------------------------------------------------------------


def test_deaths_are_counted_up_to_fifteen(bench: Bench) -> None:
    bench.queue()
    mbox = bench.event.queue_mbox(bench.at, 0)
    post(bench, bench.actor(), mbox)
    seen = []
    for _ in range(17):
        victim, watcher = bench.actor(), bench.actor()
        _, at = take(bench, victim, mbox, 0)
        seen.append(bench.dead.deaths_of(bench.at, at))
        bench.kill(victim)
        assert bench.mbox.recover_mbox(watcher, mbox) == 1
        bench.actors = 1
    assert seen == [*range(16), 15]


def test_death_of_a_re_sender_is_not_the_letters(bench: Bench) -> None:
    bench.queue()
    sender, re_sender, watcher = bench.actor(), bench.actor(), bench.actor()
    where = letter(bench, sender, bench.vcore(0).s, deaths=4)
    assert bench.dead.take_letter(re_sender, where)
    bench.kill(re_sender)
    assert bench.mbox.recover_mbox(watcher, dead_mbox(bench)) == 1
    at = bench.ucq.slot_at(bench.at, where)
    assert (bench.get(at) & 15, bench.dead.deaths_of(bench.at, at)) == (const.READY, 4)


def test_whoever_settles_a_vcores_death_settles_a_re_senders(bench: Bench) -> None:
    bench.queue()
    vc, sender, re_sender, watcher = bench.vcore(0), bench.actor(), bench.actor(), bench.actor()
    where = letter(bench, sender, vc.s)
    assert bench.dead.take_letter(re_sender, where)
    bench.kill(re_sender)
    bench.kill(vc.s)
    assert bench.recover_module.recover_vcore(watcher, 0, vc.s.me) == 0  # none of them was in the vcore's hands
    assert bench.slot_word(where) & 15 == const.READY


def test_message_put_back_has_as_many_deaths_and_is_found(bench: Bench) -> None:
    bench.queue()
    mbox = bench.event.queue_mbox(bench.at, 0)
    sender, one, other = bench.actor(), bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(mbox)
    post(bench, sender, mbox, 1)
    post(bench, sender, mbox, 2)
    where, at = take(bench, one, mbox, 6)
    assert bench.mbox.take(other, cur)
    assert bench.mbox.take(other, cur) == 0  # it is past both
    assert not bench.mbox.put_back(other, mbox, where)  # not its own
    assert bench.mbox.put_back(one, mbox, where)
    assert not bench.mbox.put_back(one, mbox, where)
    assert bench.mbox.news(other, cur)
    assert bench.mbox.take(other, cur) == at
    assert bench.dead.deaths_of(bench.at, at) == 6


# ---- dead letters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, const.INLINE_MAX, LARGE, HUGE])
@pytest.mark.parametrize("mbox", [0, 1, 8])
def test_letter_is_the_message(bench: Bench, size: int, mbox: int) -> None:
    """Whole, with its deaths and where it was taken; the message is done, and its block given back."""
    bench.queue()
    vc, sender = bench.vcore(0).s, bench.actor()
    post(bench, sender, mbox, 9, size, queue=0 if mbox < 8 else 1)
    lay_aside(bench, vc, mbox, deaths=5)
    assert not bench.mbox.waiting_in(sender, mbox, 0)
    (where,) = bench.walk(dead_mbox(bench))
    at = bench.ucq.slot_at(bench.at, where)
    args = [bench.get(at + field, width) for field, width in zip(ARGS, (2, 4, 8, 8), strict=True)]
    assert (bench.get(at + const.SL_TYPE, 2), args) == (TYPE, [9, 9, 9, 9])
    assert (bench.get(at) & 15, bench.dead.deaths_of(bench.at, at)) == (const.READY, 5)
    assert (bench.get(at + const.SL_QUEUE, 2), bench.get(at + const.SL_FROM, 2)) == (0 if mbox < 8 else 1, mbox + 1)
    assert payload(bench, where) == content(size)
    assert bench.blocks_in_use() == (0 if size <= const.INLINE_MAX else 1 if size == LARGE else 2)


ARGS = (const.SL_ARG1, const.SL_ARG2, const.SL_ARG3, const.SL_ARG4)


def test_no_vcore_looks_at_dead_letters(bench: Bench) -> None:
    bench.queue()
    vc = bench.vcore(0)
    letter(bench, bench.actor(), vc.s)
    bench.recover_module.announce(bench.actor())
    bench.run(vc)
    bench.idle(vc)
    assert vc.got == []


@pytest.mark.parametrize("size", [16, LARGE, HUGE])
def test_without_a_slot_for_it_there_is_no_letter(bench: Bench, size: int) -> None:
    bench.queue()
    mbox = bench.event.queue_mbox(bench.at, 0)
    vc, sender = bench.vcore(0).s, bench.actor()
    post(bench, sender, mbox, 1, size)
    where, at = take(bench, vc, mbox, 4)
    blocks = bench.blocks_in_use()
    fill_pages(bench, sender, bench.event.queue_mbox(bench.at, 1))
    assert bench.dead.post_letter(vc, mbox, at, bench.layout.Msg()) == const.FULL
    assert bench.slot_word(where) & 15 == const.TAKEN
    assert bench.blocks_in_use() == blocks
    assert payload(bench, where) == content(size)


@pytest.mark.parametrize("size", [LARGE, HUGE])
def test_without_a_block_for_it_there_is_no_letter(bench: Bench, size: int) -> None:
    bench.queue()
    mbox = bench.event.queue_mbox(bench.at, 0)
    vc, sender = bench.vcore(0).s, bench.actor()
    post(bench, sender, mbox, 1, size)
    _, at = take(bench, vc, mbox, 4)
    while bench.arena.alloc_block(sender, const.SPAN_SIZE) or bench.arena.alloc_block(sender, 1 << const.SMALL_SHIFT):
        pass
    while bench.arena.alloc_block(sender, size):
        pass
    assert bench.dead.post_letter(vc, mbox, at, bench.layout.Msg()) == const.FULL
    assert list(bench.walk(dead_mbox(bench))) == []


def test_letter_of_a_block_that_cannot_be_is_none(bench: Bench) -> None:
    bench.queue()
    mbox = bench.event.queue_mbox(bench.at, 0)
    vc, sender = bench.vcore(0).s, bench.actor()
    post(bench, sender, mbox, 1, LARGE)
    _, at = take(bench, vc, mbox, 4)
    for block in (0, 1 << 20, 7 | 200 << 32, 2**64 - 1):
        bench.set(at + const.SL_BLOCK, block)
        assert bench.dead.post_letter(vc, mbox, at, bench.layout.Msg()) == const.CORRUPT


# ---- telling those who hold what there was no room for ---------------------------------------------------------------


def want(bench: Bench) -> int:
    return bench.get(bench.at.procinfo + const.PI_WANT_ROOM, 4)


@pytest.mark.parametrize("what", ["page", "block", "run"])
def test_whoever_makes_room_tells_the_vcores(bench: Bench, what: str) -> None:
    bench.queue()
    holder, sleeper, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    bench.run(holder)
    block = bench.arena.alloc_block(sender, LARGE if what == "block" else HUGE)
    mbox = bench.event.queue_mbox(bench.at, 0)
    for i in range(5):
        post(bench, sender, mbox, i)
    places = [take(bench, sender, mbox, 0)[0] for _ in range(5)]
    for where in places:
        bench.mbox.put_done(sender, bench.mbox.Cursor(mbox), where)
    bench.set(bench.at.procinfo + const.PI_WANT_ROOM, 3, 4)
    assert not bench.pending(0)
    if what == "page":
        bench.ucq.advance_head(sender, mbox)
    else:
        bench.arena.free_block(sender, block)
    assert bench.pending(0)
    assert bench.pending(1)
    assert bench.map(sleeper.vcoreid) == const.VC_STARTED
    assert want(bench) == 0


def test_nobody_is_told_if_nobody_wants_room(bench: Bench) -> None:
    vc, sender = bench.vcore(0), bench.actor()
    bench.run(vc)
    bench.arena.free_block(sender, bench.arena.alloc_block(sender, LARGE))
    assert not bench.pending(0)


@pytest.mark.parametrize("dead", [True, False], ids=["killed", "stopped"])
def test_telling_may_die_or_stop_at_any_access(step_life: StepLife, dead: bool) -> None:
    """The wish for room stays until everybody has been told."""
    for n in range(500):
        bench = Bench(step_life)
        bench.asleep(0)
        bench.asleep(1)
        teller, second = bench.actor(), bench.actor()
        bench.set(bench.at.procinfo + const.PI_WANT_ROOM, 1, 4)
        died = step_life.dies(n, lambda bench=bench, t=teller: bench.proc.tell_holders(t))
        if dead:
            bench.kill(teller)
        bench.proc.tell_holders(second)
        assert (bench.pending(0), bench.pending(1), want(bench)) == (True, True, 0), f"gone before access {n}"
        assert bench.proc.vcore_will_look(second, 0)
        assert bench.proc.vcore_will_look(second, 1)
        if not died:
            break
    assert n > 10


def test_wish_for_room_that_rises_meanwhile_stays(step_life: StepLife) -> None:
    """A vcore that is told, tries in vain and wishes again is told again."""
    kept = 0
    for n in range(500):
        bench = Bench(step_life)
        bench.asleep(0)
        teller, holder = bench.actor(), bench.actor()
        at = bench.at.procinfo + const.PI_WANT_ROOM
        bench.set(at, 1, 4)

        def wish(bench: Bench = bench, at: int = at) -> None:
            bench.set(at, bench.get(at, 4) + 1, 4)

        if not step_life.interrupted(n, lambda bench=bench, t=teller: bench.proc.tell_holders(t), wish):
            break
        before_the_look = want(bench) == 0
        kept += not before_the_look
        bench.proc.tell_holders(holder)
        assert want(bench) == 0
        assert before_the_look == (n == 0)
    assert kept > 5


# ---- re-sending and discarding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, const.INLINE_MAX, LARGE, HUGE])
def test_letter_is_sent_again_to_its_queue(bench: Bench, size: int) -> None:
    bench.queue()
    vc, sender, re_sender = bench.asleep(0), bench.actor(), bench.actor()
    where = letter(bench, sender, vc.s, 6, size)
    assert bench.dead.resend_letter(re_sender, where, bench.layout.Msg()) == const.OK
    mbox = bench.event.queue_mbox(bench.at, 0)
    (again,) = [w for w in bench.walk(mbox) if bench.slot_word(w) & 15 == const.READY]
    assert payload(bench, again) == content(size)
    assert bench.dead.deaths_of(bench.at, bench.ucq.slot_at(bench.at, again)) == 0
    assert not bench.mbox.waiting_in(sender, dead_mbox(bench), 0)
    assert bench.counter(re_sender, const.AS_SENT) == 1
    bench.settle(vc)
    assert vc.got == [(TYPE, 6)]


@pytest.mark.parametrize("private", [False, True])
def test_letter_to_a_vcore_goes_to_that_vcore(bench: Bench, private: bool) -> None:
    vcores = [bench.vcore(v) for v in range(3)]
    sender = bench.actor()
    for vc in vcores:
        bench.run(vc)
    flags = const.EVENT_VCORE_PRIVATE if private else 0
    assert bench.event.post_vcore_event(sender, bench.message(3), 2, flags) == const.OK
    lay_aside(bench, vcores[2].s, bench.event.get_vcpd_mbox(bench.at, 2, flags))
    (where,) = bench.walk(dead_mbox(bench))
    assert bench.dead.resend_letter(sender, where, bench.layout.Msg()) == const.OK
    assert bench.waiting(bench.event.get_vcpd_mbox(bench.at, 2, flags)) == [3]
    bench.settle(*vcores)
    assert [vc.args for vc in vcores] == [[], [], [3]]


def test_spammed_letter_is_spammed_again(bench: Bench) -> None:
    bench.queue(0, const.EVENT_SPAM_PUBLIC, own=False)
    vc, sender = bench.vcore(0), bench.actor()
    bench.run(vc)
    assert bench.send(sender, 4) == const.OK
    lay_aside(bench, vc.s, bench.event.get_vcpd_mbox_pub(bench.at, 0))
    (where,) = bench.walk(dead_mbox(bench))
    assert bench.dead.resend_letter(sender, where, bench.layout.Msg()) == const.OK
    bench.settle(vc)
    assert vc.args == [4]


def test_block_is_never_shared_by_copies_of_a_spammed_message(bench: Bench) -> None:
    """The queue became a spamming one after the letter was written."""
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    where = letter(bench, sender, vc.s, size=LARGE)
    bench.queue(0, const.EVENT_SPAM_PUBLIC, own=False)
    blocks = bench.blocks_in_use()
    assert bench.dead.resend_letter(sender, where, bench.layout.Msg()) == const.CORRUPT
    assert (bench.slot_word(where) & 15, bench.blocks_in_use()) == (const.READY, blocks)


@pytest.mark.parametrize(
    ("break_it", "status"),
    [
        (lambda bench: bench.set(bench.layout.evq_at(bench.at, 0) + const.EVQ_USED, 0, 4), const.BAD_QUEUE),
        (lambda bench: bench.set(bench.at.procinfo + const.PI_STATE, const.P_DYING), const.GONE),
        (lambda bench: fill_pages(bench, bench.actor(), bench.event.queue_mbox(bench.at, 0)), const.FULL),
    ],
)
@pytest.mark.parametrize("size", [16, LARGE])
def test_letter_that_cannot_be_sent_stays(
    bench: Bench, break_it: Callable[[Bench], None], status: int, size: int
) -> None:
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    where = letter(bench, sender, vc.s, size=size)
    break_it(bench)
    blocks = bench.blocks_in_use()
    assert bench.dead.resend_letter(sender, where, bench.layout.Msg()) == status
    assert bench.slot_word(where) & 15 == const.READY
    assert payload(bench, where) == content(size)
    # What is reported as gone may be there: its block is its slot's.
    assert bench.blocks_in_use() == blocks + (status == const.GONE and size == LARGE and bench.blocks_in_use() > blocks)


def test_discarded_letter_leaves_nothing(bench: Bench) -> None:
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    places = [letter(bench, sender, vc.s, i, LARGE) for i in range(6)]
    assert [bench.dead.discard_letter(sender, where) for where in places] == [const.OK] * 6
    assert [bench.dead.discard_letter(sender, where) for where in places] == [const.ABSENT] * 6
    assert not bench.mbox.waiting_in(sender, dead_mbox(bench), 0)
    assert bench.blocks_in_use() == 0
    assert len(bench.chain(dead_mbox(bench))) == 1
    assert not bench.pages_lost()


@pytest.mark.parametrize("where", [0, 17, 1 << 40, 1 | 4094 << 20 | 1 << 32, 1 | 1 << 56, 2**64 - 1])
def test_place_of_no_letter_is_absent(bench: Bench, where: int) -> None:
    bench.queue()
    sender = bench.actor()
    letter(bench, sender, bench.vcore(0).s)
    assert bench.dead.resend_letter(sender, where, bench.layout.Msg()) == const.ABSENT
    assert bench.dead.discard_letter(sender, where) == const.ABSENT


@pytest.mark.parametrize("size", [16, LARGE])
def test_two_re_senders_send_a_letter_once(step_life: StepLife, size: int) -> None:
    for n in range(2000):
        bench = Bench(step_life)
        bench.queue()
        vc, sender, one, other = bench.asleep(0), bench.actor(), bench.actor(), bench.actor()
        where = letter(bench, sender, vc.s, 5, size)
        done: list[int] = []

        def resend(seg: Any, bench: Bench = bench, where: int = where, done: list[int] = done) -> None:
            done.append(bench.dead.resend_letter(seg, where, bench.layout.Msg()))

        met = step_life.interrupted(n, lambda r=resend, one=one: r(one), lambda r=resend, other=other: r(other))
        if not met:
            break
        assert sorted(done) == [const.OK, const.ABSENT], f"before access {n}"
        bench.settle(vc)
        assert vc.args == [5], f"before access {n}"
    assert n > 50


# ---- deaths at any access --------------------------------------------------------------------------------------------


def leaks(bench: Bench, seg: Any) -> tuple[frozenset[int], int]:
    bench.pages.scavenge_pages(seg)
    bench.arena.scavenge_arena(seg)
    return bench.pages_lost(), bench.blocks_in_use()


@pytest.mark.parametrize("size", [16, LARGE, HUGE])
@pytest.mark.parametrize("turn", [False, True])
def test_vcore_may_die_at_any_access_of_making_a_letter(step_life: StepLife, size: int, turn: bool) -> None:
    """The event is a dead letter, once or twice, whole; or it is there still, to be made one."""
    for n in range(3000):
        bench = Bench(step_life)
        bench.queue()
        mbox = bench.event.queue_mbox(bench.at, 0)
        vc, other, sender, watcher = bench.vcore(0), bench.actor(), bench.actor(), bench.actor()
        if turn:  # the mailbox's page is used up
            for _ in range(4):
                assert bench.dead.discard_letter(sender, letter(bench, sender, vc.s)) == const.OK
        post(bench, sender, mbox, 5, size)
        died = step_life.dies(n, lambda bench=bench, vc=vc, mbox=mbox: lay_aside(bench, vc.s, mbox))
        bench.bury(vc.s, by=watcher, vcoreid=0)
        while bench.waiting(mbox):
            lay_aside(bench, other, mbox)
        bench.kill(vc.s)
        letters = [w for w in bench.walk(dead_mbox(bench)) if bench.slot_word(w) & 15 == const.READY]
        assert 1 <= len(letters) <= 1 + died, f"dead before access {n}"
        assert {payload(bench, where) for where in letters} == {content(size)}, f"dead before access {n}"
        for where in letters:
            assert bench.dead.discard_letter(other, where) == const.OK
        assert leaks(bench, watcher) == (frozenset(), 0), f"dead before access {n}"
        if not died:
            break
    assert n > 25


@pytest.mark.parametrize("size", [16, LARGE, HUGE])
@pytest.mark.parametrize("action", ["resend", "discard"])
def test_re_sender_may_die_at_any_access(step_life: StepLife, size: int, action: str) -> None:
    """The letter is sent, or is there still; never neither."""
    for n in range(3000):
        bench = Bench(step_life)
        bench.queue()
        vc, sender, victim, second = bench.asleep(0), bench.actor(), bench.actor(), bench.actor()
        where = letter(bench, sender, vc.s, 5, size)

        def act(seg: Any, bench: Bench = bench, where: int = where) -> int:
            if action == "discard":
                return int(bench.dead.discard_letter(seg, where))
            return int(bench.dead.resend_letter(seg, where, bench.layout.Msg()))

        died = step_life.dies(n, lambda act=act, victim=victim: act(victim))
        bench.kill(victim)
        bench.settle(vc)
        bench.mbox.recover_mbox(second, dead_mbox(bench))
        there = bench.slot_word(where) & 15 == const.READY
        assert there or action == "discard" or vc.args == [5], f"dead before access {n}"
        assert act(second) == (const.OK if there else const.ABSENT), f"dead before access {n}"
        if not vc.args:  # a sender that died before it told anybody has promised nothing
            bench.send(sender, 6)
        bench.settle(vc)
        if action == "resend":
            assert 1 <= vc.args.count(5) <= 1 + died, f"dead before access {n}"
        free_payloads(bench, vc.s)
        assert leaks(bench, second) == (frozenset(), 0), f"dead before access {n}"
        if not died:
            break
    assert n > (15 if action == "resend" else 5)


def free_payloads(bench: Bench, seg: Any) -> None:
    """What the vcores of these tests leave to others: they look at no payload, and give no block back."""
    for span in range(bench.at.nr_spans):
        at = bench.layout.span_at(bench.at, span)
        word = bench.get(at)
        if word & 15 == const.SPAN_LARGE:
            ref = bench.arena.reference(span, const.BLOCK_LARGE)
            bench.arena.own_block(seg, ref)
            bench.arena.free_block(seg, ref)
        elif word & 15 == const.SPAN_SMALL:
            for i in range(bench.arena.blocks_in(bench.arena.span_class(word))):
                if bench.get(bench.arena.block_record(bench.at, span, i)) & 15 != const.BLOCK_FREE:
                    ref = bench.arena.reference(span, i)
                    bench.arena.own_block(seg, ref)
                    bench.arena.free_block(seg, ref)


# ---- batches ---------------------------------------------------------------------------------------------------------


def batch(bench: Bench, seg: Any, cur: Any, first: bool = True) -> list[int]:
    """arg1 of what a batch would hold."""
    found = []
    at = bench.mbox.take(seg, cur) if first else bench.mbox.take_like(seg, cur, TYPE, 1)
    while at:
        found.append(bench.get(at + const.SL_ARG1, 2))
        at = bench.mbox.take_like(seg, cur, TYPE, 1)
    return found


def test_batch_holds_what_is_alike_and_nobody_has_died_with(bench: Bench) -> None:
    bench.queue()
    mbox, seg, sender = bench.event.queue_mbox(bench.at, 0), bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(mbox)
    places = [post(bench, sender, mbox, i) for i in range(11)]  # three pages
    slots = [bench.ucq.slot_at(bench.at, where) for where in places]
    bench.set(slots[3], bench.get(slots[3]) | 1 << 4)
    bench.set(slots[5] + const.SL_TYPE, TYPE + 1, 2)
    bench.set(slots[8] + const.SL_QUEUE, 2, 2)
    assert batch(bench, seg, cur) == [0, 1, 2]
    assert bench.get(slots[3]) & 15 == const.READY  # not in anybody's hands
    assert batch(bench, seg, cur) == [3, 4]
    assert batch(bench, seg, cur) == [5, 6, 7]
    assert batch(bench, seg, cur) == [8, 9, 10]
    assert batch(bench, seg, cur) == []


def test_batch_ends_at_a_claim_and_goes_on_behind_it(bench: Bench) -> None:
    """A sender may be stopped there. What it sends later waits for what it sends now."""
    bench.queue()
    mbox, seg, sender, slow = bench.event.queue_mbox(bench.at, 0), bench.actor(), bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(mbox)
    post(bench, sender, mbox, 0)
    claimed = bench.ucq.claim_slot(slow, mbox)
    for i in (2, 3, 4):
        post(bench, sender, mbox, i)
    assert batch(bench, seg, cur) == [0]
    at = bench.mbox.take(seg, cur)
    assert bench.get(at + const.SL_ARG1, 2) == 2
    assert batch(bench, seg, cur, first=False) == [3, 4]
    post(bench, sender, mbox, 5)
    bench.ucq.fill_slot(slow, bench.ucq.slot_at(bench.at, claimed), bench.message(1, queue=1))
    bench.set(bench.ucq.slot_at(bench.at, claimed), bench.layout.word(const.READY, claimed >> 32, slow.me))
    assert batch(bench, seg, cur, first=False) == []  # first what was passed over
    assert batch(bench, seg, cur) == [1, 5]


def test_batch_passes_over_what_others_have_taken(bench: Bench) -> None:
    bench.queue()
    mbox, one, other, sender = bench.event.queue_mbox(bench.at, 0), bench.actor(), bench.actor(), bench.actor()
    mine, its = bench.mbox.Cursor(mbox), bench.mbox.Cursor(mbox)
    for i in range(9):
        post(bench, sender, mbox, i)
    assert bench.mbox.take(one, mine)
    assert bench.mbox.take(other, its)
    assert bench.mbox.take(other, its)
    assert batch(bench, one, mine, first=False) == [3, 4, 5, 6, 7, 8]


def test_batch_of_a_mailbox_that_was_never_used_is_empty(bench: Bench) -> None:
    bench.queue()
    cur = bench.mbox.Cursor(bench.event.queue_mbox(bench.at, 0))
    assert bench.mbox.take_like(bench.actor(), cur, TYPE, 1) == 0


def test_batch_starts_anew_when_something_is_ready_again(bench: Bench) -> None:
    bench.queue()
    mbox, seg, victim, sender = bench.event.queue_mbox(bench.at, 0), bench.actor(), bench.actor(), bench.actor()
    cur = bench.mbox.Cursor(mbox)
    for i in range(4):
        post(bench, sender, mbox, i)
    take(bench, victim, mbox, 0)
    assert bench.mbox.take(seg, cur)
    bench.kill(victim)
    bench.mbox.recover_mbox(sender, mbox)
    assert bench.mbox.take_like(seg, cur, TYPE, 1) == 0
    assert batch(bench, seg, cur) == [0, 2, 3]


@pytest.mark.parametrize("flags", [USUAL])
def test_two_vcores_take_batches_at_any_access(step_life: StepLife, flags: int) -> None:
    """Everything is in one batch, once."""
    for n in range(2000):
        bench = Bench(step_life)
        bench.queue(flags=flags)
        mbox, one, other, sender = bench.event.queue_mbox(bench.at, 0), bench.actor(), bench.actor(), bench.actor()
        for i in range(7):
            post(bench, sender, mbox, i)
        found: list[list[int]] = []

        def all_of(seg: Any, bench: Bench = bench, mbox: int = mbox, found: list[list[int]] = found) -> None:
            cur = bench.mbox.Cursor(mbox)
            while got := batch(bench, seg, cur):
                found.append(got)

        met = step_life.interrupted(n, lambda a=all_of, s=one: a(s), lambda a=all_of, s=other: a(s))
        assert sorted(i for got in found for i in got) == list(range(7)), f"before access {n}"
        assert all(got == sorted(got) for got in found)
        if not met:
            break
    assert n > 30
