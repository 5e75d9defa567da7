"""Vcores that do not move, stopped or long in a handler: others take over what they answered for, they keep what is in
their hands, and they find out when they move again. Both lives; stops before any access in the interpreted one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol import TYPE, USUAL, Bench, StepLife
from upcall.kern import const

MS = 1_000_000


@pytest.fixture
def bench(life: Any) -> Bench:
    made = Bench(life)
    made.queue()
    return made


def preempt(bench: Bench, by: Any, vcoreid: int) -> bool:
    return bool(bench.recover_module.preempt_vcore(by, vcoreid))


# ---- taken over ------------------------------------------------------------------------------------------------------


def test_what_a_stopped_vcore_answers_for_goes_to_another(bench: Bench) -> None:
    """G2: the sender relies on POLLED, whose host is stopped."""
    stopped, other, sender, watcher = bench.vcore(0), bench.asleep(1), bench.actor(), bench.actor()
    bench.send(sender, 1)
    bench.run(stopped)
    bench.send(sender, 2)
    bench.settle(other)
    assert (stopped.args, other.args) == ([1], [])
    assert preempt(bench, watcher, 0)
    bench.settle(other)
    assert other.args == [2]
    assert bench.map(0) == const.VC_AWAY


def test_the_public_mail_of_a_stopped_vcore_goes_to_another(bench: Bench) -> None:
    bench.vcore(0)
    other, sender, watcher = bench.asleep(1), bench.actor(), bench.actor()
    bench.event.post_vcore_event(sender, bench.message(1), 0, 0)
    bench.event.post_vcore_event(sender, bench.message(2, ev_type=TYPE + 1), 0, const.EVENT_NOMSG)
    preempt(bench, watcher, 0)
    bench.settle(other)
    assert (other.args, other.bits) == ([1], [TYPE + 1])


def test_private_mail_waits_for_the_stopped_vcore(bench: Bench) -> None:
    stopped, other, sender, watcher = bench.vcore(0), bench.asleep(1), bench.actor(), bench.actor()
    bench.event.post_vcore_event(sender, bench.message(1), 0, const.EVENT_VCORE_PRIVATE)
    preempt(bench, watcher, 0)
    bench.settle(other)
    assert other.args == []
    bench.run(stopped)
    assert stopped.args == [1]


def test_what_is_in_its_hands_stays_there(bench: Bench) -> None:
    """G5: a handler that runs long is not run twice."""
    slow, other, sender, watcher = bench.vcore(0), bench.asleep(1), bench.actor(), bench.actor()
    for i in range(3):
        bench.send(sender, i)

    def meanwhile() -> None:
        slow.during = lambda: None
        preempt(bench, watcher, 0)
        bench.settle(other)

    slow.during = meanwhile
    bench.idle(slow)
    assert (slow.args, other.args) == ([0], [1, 2])


def test_nobody_gives_a_core_to_one_that_is_away(bench: Bench) -> None:
    bench.vcore(0)
    sender, watcher = bench.actor(), bench.actor()
    preempt(bench, watcher, 0)
    assert not bench.proc.startcore(sender, 0)
    assert not bench.proc.vcore_will_look(sender, 0)
    assert not bench.recover_module.is_hosted(sender, 0)


def test_a_sleeper_that_does_not_wake_is_taken_over(bench: Bench) -> None:
    """Stopped in its sleep: it was given a core, and never took it."""
    bench.asleep(0)
    sender, watcher = bench.actor(), bench.actor()
    bench.send(sender, 1)
    assert bench.map(0) == const.VC_STARTED
    other = bench.asleep(1)
    assert preempt(bench, watcher, 0)
    bench.settle(other)
    assert other.args == [1]


@pytest.mark.parametrize("vcores", [1, 2])
def test_with_all_away_events_wait_for_the_first_to_come_back(life: Any, vcores: int) -> None:
    bench = Bench(life, vcores=vcores)
    bench.queue()
    ours, sender, watcher = [bench.vcore(v) for v in range(vcores)], bench.actor(), bench.actor()
    for v in range(vcores):
        preempt(bench, watcher, v)
    assert bench.send(sender, 1) == const.OK
    bench.run(ours[-1])
    assert ours[-1].args == [1]
    assert bench.map(vcores - 1) == const.VC_ONLINE


def test_the_program_is_told_if_it_asked(bench: Bench) -> None:
    """EV_VCORE_PREEMPT to the queue that is registered for it."""
    bench.set(bench.layout.kernel_evt_at(bench.at, const.EV_VCORE_PREEMPT), 1, 4)
    bench.vcore(2)
    other, watcher = bench.asleep(1), bench.actor()
    preempt(bench, watcher, 2)
    bench.settle(other)
    assert [kind for kind, _ in other.got] == [const.EV_VCORE_PREEMPT]
    preempt(bench, watcher, 2)
    bench.settle(other)
    assert len(other.got) == 1


# ---- coming back -----------------------------------------------------------------------------------------------------


def test_a_vcore_that_moves_again_comes_back(bench: Bench) -> None:
    vc, sender, watcher = bench.vcore(0), bench.actor(), bench.actor()
    preempt(bench, watcher, 0)
    bench.run(vc)
    assert bench.map(0) == const.VC_ONLINE
    assert bench.event.can_msg_vcore(sender, 0)
    bench.send(sender, 5)
    bench.idle(vc)
    assert vc.args == [5]


def test_one_on_its_way_to_sleep_comes_back_first(bench: Bench) -> None:
    """AWAY and asleep would be for ever: nobody gives it a core."""
    vc, watcher = bench.vcore(0), bench.actor()
    preempt(bench, watcher, 0)
    assert not bench.vcore_module.vcore_yield(vc)
    bench.idle(vc)
    assert bench.map(0) == const.VC_OFFLINE


@pytest.mark.parametrize("state", ["PREEMPTED", "BULK"])
def test_a_revoked_core_is_obeyed(bench: Bench, state: str) -> None:
    """What it answered for goes to others, and it sleeps until it is given a core."""
    vc, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    bench.send(sender, 1)
    bench.run(vc)
    bench.set_map(0, getattr(const, "VC_" + state), vc.s.me)
    bench.send(sender, 2)
    bench.vcore_module.work(vc)
    bench.settle(other)
    assert vc.slept == 1
    assert sorted(vc.args + other.args) == [1, 2]


def test_one_that_is_said_to_be_dead_leaves(bench: Bench) -> None:
    vc = bench.vcore(0)
    bench.set_map(0, const.VC_NOHOST)
    bench.vcore_module.work(vc)
    assert vc.leaving


# ---- any access ------------------------------------------------------------------------------------------------------


FLAGS = [USUAL, USUAL | const.EVENT_NOMSG, USUAL | const.EVENT_NOTHROTTLE]


def sweep(
    step_life: StepLife, flags: int, action: Callable[[Bench, Any, Any], None], accesses: int, *, again: bool = False
) -> None:
    """Stops a vcore before each access of `action`; meanwhile more is sent, a watcher takes over, another vcore works. All
    but what is in the stopped one's hands is handled without it; nothing is lost or doubled when it goes on."""
    n = 0
    while stopped_before(n, step_life, flags, action, again):
        n += 1
    assert n > accesses


def stopped_before(
    n: int, step_life: StepLife, flags: int, action: Callable[[Bench, Any, Any], None], again: bool
) -> bool:
    """One n of the sweep. False if there is no such access."""
    bits = bool(flags & const.EVENT_NOMSG)
    bench = Bench(step_life)
    bench.queue(flags=flags)
    sender, watcher = bench.actor(), bench.actor()
    vc, other = bench.vcore(0), bench.asleep(1)
    if again:
        preempt(bench, watcher, 0)
    for i in range(3):
        bench.send(sender, i, ev_type=TYPE + i)
    bench.settle(other)

    def handled() -> list[int]:
        return sorted(kind for v in (vc, other) for kind in (v.bits if bits else [kind for kind, _ in v.got]))

    def meanwhile() -> None:
        bench.send(sender, 3, ev_type=TYPE + 3)
        preempt(bench, watcher, 0)
        bench.settle(other)
        missing = {TYPE + i for i in range(4)} - set(handled())
        assert len(missing) <= 1, f"stopped before access {n}: {missing} wait for it"

    if not step_life.interrupted(n, lambda: action(bench, vc, sender), meanwhile):
        return False
    bench.settle(vc, other)
    if bits:
        assert set(handled()) == {TYPE + i for i in range(4)}, f"stopped before access {n}"
    else:
        assert handled() == [TYPE + i for i in range(4)], f"stopped before access {n}"
    assert not bench.pages_lost()
    return True


@pytest.mark.parametrize("flags", FLAGS)
def test_vcore_may_stop_at_any_access(step_life: StepLife, flags: int) -> None:
    """G1, G2, G5."""
    sweep(step_life, flags, lambda bench, vc, sender: bench.idle(vc), 40)


@pytest.mark.parametrize("flags", FLAGS)
def test_vcore_may_stop_again_on_its_way_back(step_life: StepLife, flags: int) -> None:
    sweep(step_life, flags, lambda bench, vc, sender: bench.idle(vc), 40, again=True)


@pytest.mark.parametrize("flags", FLAGS)
def test_vcore_may_stop_at_any_access_while_it_wakes(step_life: StepLife, flags: int) -> None:
    def wakes(bench: Bench, vc: Any, sender: Any) -> None:
        bench.idle(vc)
        bench.event.post_vcore_event(sender, bench.message(9, ev_type=const.EV_NONE), 0, const.EVENT_NOMSG)
        assert bench.wake(vc) or bench.map(0) in (const.VC_ONLINE, const.VC_AWAY)
        bench.idle(vc)

    sweep(step_life, flags, wakes, 100)


def test_the_watcher_may_die_at_any_access(step_life: StepLife) -> None:
    """The next watcher brings it to its end."""
    for n in range(3000):
        bench = Bench(step_life)
        bench.queue()
        stopped, other, sender, watcher, second = (
            bench.vcore(0), bench.asleep(1), bench.actor(), bench.actor(), bench.actor(),
        )  # fmt: skip
        bench.send(sender, 0)
        bench.run(stopped)
        bench.send(sender, 1)
        bench.event.post_vcore_event(sender, bench.message(2), 0, 0)
        died = step_life.dies(n, lambda bench=bench, watcher=watcher: preempt(bench, watcher, 0))
        bench.settle(other)
        bench.kill(watcher)
        preempt(bench, second, 0)
        bench.settle(other)
        assert sorted(other.args) == [1, 2], f"dead before access {n}"
        if not died:
            break
    assert n > 50


def test_watcher_going_to_sleep_against_a_wake_at_any_access(step_life: StepLife) -> None:
    """A vcore that runs is watched, or the watcher is told of it."""
    for n in range(100):
        bench = Bench(step_life)
        bench.queue()
        bench.asleep(0)
        sender, watcher = bench.actor(), bench.actor()
        slept: list[bool] = []
        more = step_life.interrupted(
            n,
            lambda w=watcher, bench=bench, slept=slept: slept.append(bench.watch_module.watch_sleeps(w)),
            lambda bench=bench, sender=sender: bench.send(sender, 1),
        )
        if not more:
            break
        assert not slept[0] or bench.at.max_vcores in bench.world.interrupted, f"at access {n}"
    assert n > 3


def test_wake_against_a_watcher_going_to_sleep_at_any_access(step_life: StepLife) -> None:
    for n in range(500):
        bench = Bench(step_life)
        bench.queue()
        bench.asleep(0)
        sender, watcher = bench.actor(), bench.actor()
        slept: list[bool] = []
        more = step_life.interrupted(
            n,
            lambda bench=bench, sender=sender: bench.send(sender, 1),
            lambda w=watcher, bench=bench, slept=slept: slept.append(bench.watch_module.watch_sleeps(w)),
        )
        if not more:
            break
        assert not slept[0] or bench.at.max_vcores in bench.world.interrupted, f"at access {n}"
    assert n > 20


# ---- finding them ----------------------------------------------------------------------------------------------------


def test_only_one_that_does_not_move_while_mail_waits_is_found(bench: Bench) -> None:
    vc, sender, watcher = bench.vcore(0), bench.actor(), bench.actor()
    bench.asleep(1)
    watch = bench.watch_module
    seen = watch.Watch()

    def found(ms: int) -> int:
        return int(watch.next_still(watcher, seen, 0, ms * MS, 50 * MS))

    assert found(1000) == const.NO_VCORE
    assert found(1100) == const.NO_VCORE  # nothing waits
    bench.send(sender, 1)
    assert found(1200) == 0
    bench.set(bench.layout.vcpd_at(bench.at, 0) + const.VCPD_HANDLED, 1)
    assert found(1300) == const.NO_VCORE  # it has moved
    assert found(1340) == const.NO_VCORE
    assert found(1351) == 0
    bench.run(vc)
    assert found(1500) == const.NO_VCORE


def test_a_message_in_hand_is_not_one_that_waits(bench: Bench) -> None:
    vc, sender, watcher = bench.vcore(0), bench.actor(), bench.actor()
    bench.send(sender, 1)
    seen: list[bool] = []
    vc.during = lambda: seen.append(bench.watch_module.mail_waits(watcher, 1))
    assert bench.watch_module.mail_waits(watcher, 1)
    bench.run(vc)
    assert seen == [False]


def test_who_could_take_over(bench: Bench) -> None:
    bench.vcore(0)
    watcher, watch = bench.actor(), bench.watch_module
    seen = watch.Watch()
    watch.next_still(watcher, seen, 0, 1000 * MS, 50 * MS)
    assert watch.somebody_moves(watcher, seen, 1010 * MS, 50 * MS)
    assert not watch.somebody_moves(watcher, seen, 1100 * MS, 50 * MS)
    bench.asleep(1)
    assert watch.somebody_moves(watcher, seen, 1100 * MS, 50 * MS)


def test_a_core_given_to_a_dead_host_is_taken_back(bench: Bench) -> None:
    """With no watcher alive the sender that wakes nobody finds out by itself."""
    vc, other, sender = bench.asleep(0), bench.asleep(1), bench.actor()
    bench.kill(vc.s)
    bench.send(sender, 1)
    bench.settle(other)
    assert bench.map(0) == const.VC_NOHOST
    assert other.args == [1]
