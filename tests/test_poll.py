"""A vcore that sleeps in an event loop's poll: who wakes it, with what, and that no sleep is slept on work."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import TYPE, USUAL, Bench, StepLife
from upcall.kern import const


@pytest.fixture
def bench(life: Any) -> Bench:
    return Bench(life)


def polling(bench: Bench, vcoreid: int = 0) -> Any:
    """A vcore that will sleep in a poll."""
    vc = bench.vcore(vcoreid)
    bench.life.parlib.poll.sleep_in_poll(vc)
    return vc


def in_poll(bench: Bench, vcoreid: int = 0) -> Any:
    vc = polling(bench, vcoreid)
    bench.idle(vc)
    return vc


def back(bench: Bench, vc: Any) -> bool:
    return bool(bench.life.parlib.poll.come_back(vc))


# ---- waking ----------------------------------------------------------------------------------------------------------


def test_a_poll_is_ended_by_one_system_call_whatever_is_sent(bench: Bench) -> None:
    bench.queue()
    vc, sender = polling(bench), bench.actor()
    bench.send(sender, 0)  # gets the page
    bench.idle(vc)
    before = bench.counter(sender, const.AS_SYSCALLS)
    for i in (1, 2):
        bench.send(sender, i)
    assert bench.counter(sender, const.AS_WAKES) == bench.counter(sender, const.AS_SYSCALLS) - before == 1
    assert bench.map(0) == const.VC_STARTED
    assert back(bench, vc)
    bench.run(vc)
    assert vc.args == [0, 1, 2]


def test_a_loop_that_is_awake_gets_no_system_call(bench: Bench) -> None:
    bench.queue()
    vc, sender = polling(bench), bench.actor()
    bench.send(sender, 1)
    bench.run(vc)
    before = bench.counter(sender, const.AS_SYSCALLS)
    bench.send(sender, 2)
    assert bench.counter(sender, const.AS_SYSCALLS) == before
    bench.run(vc)
    assert vc.args == [1, 2]


def test_the_byte_is_in_its_fifo(step_life: StepLife) -> None:
    bench = Bench(step_life)
    bench.queue(vcore=1)
    in_poll(bench, 1)
    bench.send(bench.actor(), 1)
    assert bench.world.interrupted == [1]
    assert not bench.memory.woken


def test_a_loop_comes_back_by_itself(bench: Bench) -> None:
    vc = in_poll(bench)
    assert bench.map(0) == const.VC_OFFLINE
    assert back(bench, vc)
    assert bench.map(0) == const.VC_ONLINE
    assert bench.event.can_msg_vcore(vc.s, 0)


def test_a_loop_whose_core_was_taken_waits_until_it_is_given_one(bench: Bench) -> None:
    vc, other = polling(bench), bench.actor()
    bench.proc.proc_preempt_core(other, 0)
    assert not back(bench, vc)
    assert bench.proc.startcore(other, 0)
    assert back(bench, vc)


def test_a_loop_that_was_said_to_be_dead_leaves(bench: Bench) -> None:
    vc = in_poll(bench)
    bench.set_map(0, const.VC_NOHOST)
    assert back(bench, vc)
    assert vc.leaving


def test_the_next_host_sleeps_on_its_word_again(bench: Bench) -> None:
    vc, sender = in_poll(bench), bench.actor()
    bench.bury(vc.s, by=sender, vcoreid=0)
    bench.vcore(0)
    assert not bench.vcpd(0, const.VCPD_FLAGS) & const.VC_IN_POLL


def test_who_cannot_open_the_fifo_relies_on_nothing(step_life: StepLife) -> None:
    """Its send fails, the core stays being given, and whoever comes next writes the byte."""
    bench = Bench(step_life, vcores=1)
    bench.queue()
    vc, one, two = in_poll(bench), bench.actor(), bench.actor()
    bench.world.deaf.add(0)
    bench.send(one, 1)
    assert bench.map(0) == const.VC_STARTING
    bench.world.deaf.clear()
    bench.send(two, 2)
    assert bench.world.interrupted
    assert back(bench, vc)
    bench.run(vc)
    assert vc.args == [1, 2]


def test_a_dead_host_in_a_poll_is_found_by_its_waker(step_life: StepLife) -> None:
    bench = Bench(step_life)
    vc, sender = in_poll(bench), bench.actor()
    bench.kill(vc.s)
    bench.world.deaf.add(0)  # nobody reads any more
    assert not bench.proc.startcore(sender, 0)
    assert bench.map(0) == const.VC_NOHOST


# ---- full ------------------------------------------------------------------------------------------------------------


def full_with(bench: Bench, *waiting: int) -> tuple[Any, Any]:
    """A vcore that is full after its first message, with these behind it; and the sender."""
    bench.queue()
    vc, sender = polling(bench), bench.actor()
    vc.tasks.add(0)

    def fill() -> None:
        vc.during = lambda: None
        bench.life.parlib.poll.now_full(vc)

    vc.during = fill
    for arg in (0, *waiting):
        bench.send(sender, arg)
    bench.run(vc)
    return vc, sender


def test_a_full_vcore_takes_no_more(bench: Bench) -> None:
    vc, _ = full_with(bench, 1, 2)
    assert vc.args == [0]
    bench.idle(vc)
    assert bench.map(0) == const.VC_OFFLINE
    assert back(bench, vc)
    bench.life.parlib.poll.no_longer_full(vc)
    bench.run(vc)
    assert vc.args == [0, 1, 2]


def test_what_a_full_vcore_leaves_is_anothers_work(bench: Bench) -> None:
    bench.queue()
    other = bench.asleep(1)
    full_with(bench, 1, 2)
    bench.settle(other)
    assert other.args == [1, 2]


def test_what_is_sent_to_a_full_vcore_is_anothers_work(bench: Bench) -> None:
    vc, sender = full_with(bench)
    bench.idle(vc)
    other = bench.asleep(1)
    bench.send(sender, 1)
    assert back(bench, vc)
    bench.run(vc)
    bench.settle(other)
    assert vc.args == [0]
    assert other.args == [1]


def test_what_a_full_vcore_is_told_is_anothers_work_that_is_awake(bench: Bench) -> None:
    """It once gave a core to one that slept, and to nobody if all others were awake, though on their way to sleep."""
    vc, sender = full_with(bench)
    other = bench.vcore(1)
    bench.run(other)
    bench.send(sender, 1)
    bench.run(vc)
    bench.idle(vc)
    bench.idle(other)
    assert vc.args == [0]
    assert other.args == [1]


def test_a_full_vcore_tells_none_that_is_full(bench: Bench) -> None:
    second, _ = full_with(bench)
    first, third = polling(bench, 1), bench.asleep(2)
    first.tasks.add(0)
    bench.life.parlib.poll.now_full(first)
    bench.idle(first)
    bench.send(bench.actor(), 1)
    bench.run(second)
    assert not bench.types_waiting(bench.event.get_vcpd_mbox_pub(bench.at, 1))
    bench.settle(third)
    assert third.args == [1]


@pytest.mark.parametrize("flags", [0, const.EVENT_NOMSG])
def test_a_full_vcore_leaves_mail_to_whom_it_passes_on(bench: Bench, flags: int) -> None:
    """It once took from another's mailbox what it had just passed on to that one, and passed it on, for ever."""
    vc, sender = full_with(bench)
    bench.idle(vc)
    other = bench.asleep(1)
    told = bench.message(ev_type=const.EV_EVENT)
    told.arg3 = 0
    bench.event.spam_vcore(sender, 1, told, flags)
    look = bench.message(ev_type=const.EV_CHECK_MSGS)
    look.arg3 = 1
    bench.event.post_vcore_event(sender, look, 0, 0)
    bench.ucq.send_ucq_msg(sender, bench.event.queue_mbox(bench.at, 0), bench.message(1))
    assert back(bench, vc)
    bench.idle(vc)
    bench.settle(other)
    assert other.args == [1]


def test_the_first_whose_task_ends_answers_for_what_all_have_refused(bench: Bench) -> None:
    """DONE, with nothing in the queue any more, once outlived the time when all were full."""
    vc, sender = full_with(bench)
    bench.idle(vc)
    bench.set(bench.layout.evq_at(bench.at, 0) + const.EVQ_ALERT, const.ALERT_DONE)
    bench.life.parlib.poll.no_longer_full(vc)
    assert back(bench, vc)
    bench.idle(vc)
    bench.send(sender, 1)
    assert back(bench, vc)
    bench.run(vc)
    assert vc.args == [0, 1]


def test_who_has_left_says_nothing_about_the_next_host(bench: Bench) -> None:
    vc, _ = full_with(bench)
    bench.proc.unhost_vcore(vc.s, 0)
    bench.life.parlib.poll.now_full(polling(bench))
    bench.life.parlib.poll.no_longer_full(vc)
    assert bench.vcpd(0, const.VCPD_FLAGS) & const.VC_FULL


def test_the_next_host_is_not_full(bench: Bench) -> None:
    vc, sender = full_with(bench)
    bench.bury(vc.s, by=sender, vcoreid=0)
    bench.vcore(0)
    assert not bench.vcpd(0, const.VCPD_FLAGS) & const.VC_FULL


def test_a_full_vcore_takes_from_other_queues(bench: Bench) -> None:
    bench.queue(1)
    vc, sender = full_with(bench, 1)
    bench.send(sender, 7, queue=1)
    bench.run(vc)
    assert vc.args == [0, 7]


def test_a_bit_in_a_tasks_hands_lets_no_other_be_taken(bench: Bench) -> None:
    flags = USUAL | const.EVENT_NOMSG
    bench.queue(flags=flags)
    vc, sender = polling(bench), bench.actor()
    bench.send(sender, ev_type=TYPE)
    bench.send(sender, ev_type=TYPE + 1)

    def keep() -> None:
        vc.bit_task = True

    vc.during = keep
    bench.run(vc)
    assert vc.bits == [TYPE]
    bench.idle(vc)
    vc.during = lambda: None
    assert back(bench, vc)
    bench.life.parlib.poll.bit_done(vc, False)
    bench.run(vc)
    assert vc.bits == [TYPE, TYPE + 1]


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_a_bit_whose_task_does_not_end_is_set_again(bench: Bench, how: str) -> None:
    bench.queue(flags=USUAL | const.EVENT_NOMSG)
    vc, sender = polling(bench), bench.actor()
    bench.send(sender, ev_type=TYPE)
    vc.during = lambda: setattr(vc, "bit_task", True)
    bench.run(vc)
    vc.during = lambda: None
    if how == "cancelled":
        bench.life.parlib.poll.bit_done(vc, True)
        bench.run(vc)
        assert vc.bits == [TYPE, TYPE]
    else:
        other = bench.asleep(1)
        bench.bury(vc.s, by=sender, vcoreid=0)
        bench.settle(other)
        assert other.bits == [TYPE]


def test_a_host_that_leaves_gives_back_its_tasks_bit_and_leaves_the_next_ones_note_alone(bench: Bench) -> None:
    """The end of its task once took the next host's note away, and a cancelled one set no bit again if that had one."""
    bench.queue(flags=USUAL | const.EVENT_NOMSG)
    vc, sender = polling(bench), bench.actor()
    poll = bench.life.parlib.poll
    bench.send(sender, ev_type=TYPE)
    vc.during = lambda: setattr(vc, "bit_task", True)
    bench.run(vc)
    poll.give_bit_back(vc)
    bench.vcore_module.vcore_leave(vc)
    bench.proc.unhost_vcore(vc.s, 0)
    note = bench.layout.vcpd_at(bench.at, 0) + const.VCPD_BIT
    assert not bench.get(note)
    other, held = bench.vcore(0), []

    def end_of_the_formers_task() -> None:
        poll.bit_done(vc, True)
        held.append(bench.get(note))

    other.during = end_of_the_formers_task
    bench.run(other)
    assert other.bits == [TYPE]
    box = bench.event.queue_mbox(bench.at, 0)
    assert held == [bench.recover_module.bit_in_hand(other.s.me, box, TYPE)]


# ---- every meeting, every death --------------------------------------------------------------------------------------


def settle(bench: Bench, vc: Any) -> None:
    """What the loop does: a byte ends its poll, it looks until it sleeps again."""
    for _ in range(20):
        if bench.map(0) == const.VC_ONLINE:
            bench.idle(vc)
        elif bench.world.interrupted:
            bench.world.interrupted.clear()
            assert back(bench, vc)
        else:
            return
    raise AssertionError("the loop never comes to rest")


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("flags", [USUAL, USUAL | const.EVENT_NOMSG, USUAL | const.EVENT_NOTHROTTLE])
def test_going_to_the_poll_against_a_send_at_any_access(step_life: StepLife, flags: int, own: bool) -> None:
    """G2: the sender comes between any two accesses of a loop that works, yields and sleeps."""
    for n in range(2000):
        bench = Bench(step_life, vcores=1)
        bench.queue(flags=flags, own=own)
        vc, sender = polling(bench), bench.actor()
        more = step_life.interrupted(
            n, lambda bench=bench, vc=vc: bench.idle(vc), lambda bench=bench, sender=sender: bench.send(sender, 1)
        )
        settle(bench, vc)
        if not more:
            break
        assert vc.bits if flags & const.EVENT_NOMSG else vc.args == [1], f"at access {n}"
        assert bench.map(0) == const.VC_OFFLINE
    assert n > 10


@pytest.mark.parametrize("why", ["a byte", "a timer"])
def test_send_against_a_loop_at_any_access(step_life: StepLife, why: str) -> None:
    """G2, G12: the loop wakes, works and sleeps again between any two accesses of a sender; then another sends."""
    for n in range(2000):
        bench = Bench(step_life, vcores=1)
        bench.queue()
        vc, one, other = in_poll(bench), bench.actor(), bench.actor()

        def meanwhile(bench: Bench = bench, vc: Any = vc, other: Any = other) -> None:
            if why == "a timer":
                bench.world.interrupted.append(0)
            settle(bench, vc)
            bench.send(other, 2)
            settle(bench, vc)

        more = step_life.interrupted(n, lambda bench=bench, one=one: bench.send(one, 1), meanwhile)
        settle(bench, vc)
        bench.send(other, 3)
        settle(bench, vc)
        assert sorted(vc.args) == ([1, 2, 3] if more else [1, 3]), f"at access {n}"
        if not more:
            break
    assert n > 15


def test_a_waker_may_die_at_any_access(step_life: StepLife) -> None:
    """G12: whatever a sender had written when it died, the next one ends the poll."""
    for n in range(2000):
        bench = Bench(step_life, vcores=1)
        bench.queue()
        vc, one, other = in_poll(bench), bench.actor(), bench.actor()
        died = step_life.dies(n, lambda bench=bench, one=one: bench.send(one, 1))
        bench.kill(one)
        bench.send(other, 2)
        settle(bench, vc)
        assert vc.args in ([1, 2], [2]), f"dead before access {n}"
        if not died:
            break
    assert n > 15


def test_a_full_vcore_may_die_at_any_access(step_life: StepLife) -> None:
    """G1, G4: what it had in hand, and what it left for others, is handled by another."""
    for n in range(3000):
        bench = Bench(step_life, vcores=2)
        bench.queue()
        vc, sender = polling(bench), bench.actor()
        vc.tasks.add(0)
        held: list[int] = []

        def fill(bench: Bench = bench, vc: Any = vc, held: list[int] = held) -> None:
            held.append(1)
            bench.life.parlib.poll.now_full(vc)

        vc.during = fill
        for i in range(3):
            bench.send(sender, i)

        def live(bench: Bench = bench, vc: Any = vc, sender: Any = sender) -> None:
            bench.idle(vc)
            bench.send(sender, 3)
            bench.life.parlib.poll.come_back(vc)
            bench.life.parlib.poll.no_longer_full(vc)
            bench.idle(vc)

        died = step_life.dies(n, live)
        other = bench.asleep(1)
        bench.bury(vc.s, by=sender, vcoreid=0)
        bench.settle(other)
        assert {0, 1, 2} <= {*vc.args, *other.args}, f"dead before access {n}"
        if not died:
            break
    assert n > 40
