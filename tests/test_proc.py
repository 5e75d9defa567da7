"""The process and its vcores: who runs, who is given a core, who sleeps, and that no death or meeting leaves it unsaid."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import Bench, StepLife
from upcall.kern import const


@pytest.fixture
def bench(life: Any) -> Bench:
    return Bench(life)


def hosted(bench: Bench, vcoreid: int = 0) -> Any:
    """A host of a vcore that runs; no vcore context."""
    seg = bench.actor()
    assert bench.recover_module.host_vcore(seg, vcoreid)
    assert bench.proc.vcore_online(seg, vcoreid)
    return seg


def offline(bench: Bench, vcoreid: int = 0) -> Any:
    seg = hosted(bench, vcoreid)
    assert bench.proc.proc_yield(seg, vcoreid)
    return seg


def starting(bench: Bench, vcoreid: int = 0) -> None:
    """Somebody gave the vcore a core, and died before the wake."""
    giver = bench.actor()
    bench.set_map(vcoreid, const.VC_STARTING, giver.me)
    bench.kill(giver)


# ---- words -----------------------------------------------------------------------------------------------------------


def test_every_change_of_a_vcores_word_changes_its_futex(bench: Bench) -> None:
    at = bench.layout.map_at(bench.at, 0)
    seg, sender = bench.actor(), bench.actor()
    seen = [bench.get(at, 4)]
    for step in (
        lambda: bench.recover_module.host_vcore(seg, 0),
        lambda: bench.proc.vcore_online(seg, 0),
        lambda: bench.proc.proc_yield(seg, 0),
        lambda: bench.proc.startcore(sender, 0),
        lambda: bench.proc.vcore_online(seg, 0),
        lambda: bench.proc.proc_preempt_core(sender, 0),
        lambda: bench.proc.unhost_vcore(seg, 0),
    ):
        step()
        seen.append(bench.get(at, 4))
    assert len(set(seen)) == len(seen)


def test_sequence_of_a_vcores_word_wraps(bench: Bench) -> None:
    last = bench.proc.vc_word(const.VC_ONLINE, const.VC_SEQ_MASK, 7)
    assert bench.proc.vc_next(last, const.VC_OFFLINE, 9) == const.VC_OFFLINE | (9 << 32)


def test_number_of_vcores_is_never_more_than_the_geometry(bench: Bench) -> None:
    for hostile in (5, 2**32, 2**64 - 1):
        bench.set(bench.at.procinfo + const.PI_NUM_VCORES, hostile)
        assert bench.proc.num_vcores(bench.at) == 4


def test_one_vcore_is_a_single_core_process(life: Any) -> None:
    assert not Bench(life, vcores=1).proc.is_mcp(Bench(life, vcores=1).at)
    assert Bench(life, vcores=2).proc.is_mcp(Bench(life, vcores=2).at)


@pytest.mark.parametrize(("vcores", "running"), [(1, const.P_RUNNING_S), (4, const.P_RUNNING_M)])
def test_running_process_says_which_kind_it_is(life: Any, vcores: int, running: int) -> None:
    bench = Bench(life, vcores=vcores)
    hosted(bench)
    assert bench.state() == running


def test_lists_are_views_of_the_words(bench: Bench) -> None:
    states = [const.VC_OFFLINE, const.VC_BULK, const.VC_ONLINE, const.VC_STARTED]
    for v, state in enumerate(states):
        bench.set_map(v, state)
    first = bench.proc.list_first
    assert [first(bench.at, state, 0) for state in states] == [0, 1, 2, 3]
    assert first(bench.at, const.VC_ONLINE, 3) == 3
    assert first(bench.at, const.VC_PREEMPTED, 0) == const.NO_VCORE
    assert bench.proc.nr_running(bench.at) == 2


def test_lists_end_at_the_number_of_vcores(bench: Bench) -> None:
    bench.set(bench.at.procinfo + const.PI_NUM_VCORES, 2)
    bench.set_map(3, const.VC_ONLINE)
    assert bench.proc.list_first(bench.at, const.VC_ONLINE, 0) == const.NO_VCORE


@pytest.mark.parametrize("state", range(16))
def test_mapped_means_running_or_given_a_core(bench: Bench, state: int) -> None:
    bench.set_map(0, state)
    running = state in (const.VC_STARTING, const.VC_STARTED, const.VC_ONLINE)
    assert bench.proc.vcore_is_mapped(bench.at, 0) == running


# ---- giving cores ----------------------------------------------------------------------------------------------------


def test_core_for_a_sleeper_is_done_when_the_wake_is_out(bench: Bench) -> None:
    offline(bench)
    sender = bench.actor()
    assert bench.proc.startcore(sender, 0)
    assert bench.map(0) == const.VC_STARTED
    assert bench.counter(sender, const.AS_WAKES) == 1
    assert bench.state() == const.P_RUNNING_M


def test_core_for_one_who_runs_costs_nothing(bench: Bench) -> None:
    hosted(bench)
    sender = bench.actor()
    assert bench.proc.startcore(sender, 0)
    assert bench.counter(sender, const.AS_SYSCALLS) == 0
    assert bench.map(0) == const.VC_ONLINE


def test_second_core_for_a_sleeper_issues_no_second_wake(bench: Bench) -> None:
    offline(bench)
    sender = bench.actor()
    bench.proc.startcore(sender, 0)
    bench.proc.startcore(sender, 0)
    assert bench.counter(sender, const.AS_WAKES) == 1


def test_nobody_to_give_a_core_to(bench: Bench) -> None:
    assert not bench.proc.startcore(bench.actor(), 0)
    assert bench.map(0) == const.VC_NOHOST


def test_wake_of_a_dead_giver_is_issued_by_the_next(bench: Bench) -> None:
    offline(bench)
    starting(bench)
    sender = bench.actor()
    assert bench.proc.startcore(sender, 0)
    assert (bench.map(0), bench.counter(sender, const.AS_WAKES)) == (const.VC_STARTED, 1)


def test_one_about_to_be_woken_is_not_relied_on_but_woken(bench: Bench) -> None:
    offline(bench)
    starting(bench)
    sender = bench.actor()
    assert bench.proc.vcore_will_look(sender, 0)
    assert (bench.map(0), bench.counter(sender, const.AS_WAKES)) == (const.VC_STARTED, 1)


@pytest.mark.parametrize("state", [const.VC_NOHOST, const.VC_OFFLINE, const.VC_PREEMPTED, const.VC_BULK])
def test_one_without_a_core_is_not_relied_on(bench: Bench, state: int) -> None:
    bench.set_map(0, state)
    assert not bench.proc.vcore_will_look(bench.actor(), 0)


@pytest.mark.parametrize("state", [const.VC_PREEMPTED, const.VC_BULK])
def test_preempted_vcore_can_get_a_core_back(bench: Bench, state: int) -> None:
    hosted(bench)
    bench.set_map(0, state)
    assert bench.proc.startcore(bench.actor(), 0)
    assert bench.map(0) == const.VC_STARTED


def test_bulk_preempted_come_before_preempted_before_inactive(bench: Bench) -> None:
    for v, state in enumerate([const.VC_OFFLINE, const.VC_PREEMPTED, const.VC_BULK, const.VC_ONLINE]):
        hosted(bench, v)
        bench.set_map(v, state)
    sender = bench.actor()
    order = []
    for _ in range(3):
        before = [bench.map(v) for v in range(4)]
        assert bench.proc.start_one_more(sender, 0)
        order += [v for v in range(4) if bench.map(v) != before[v]]
    assert order == [2, 1, 0]
    assert not bench.proc.start_one_more(sender, 0)


def test_one_more_starts_from_the_proposed_vcore(bench: Bench) -> None:
    for v in range(4):
        offline(bench, v)
    assert bench.proc.start_one_more(bench.actor(), 2)
    assert [bench.map(v) for v in range(4)].index(const.VC_STARTED) == 2


def test_one_more_looks_before_the_proposed_vcore_too(bench: Bench) -> None:
    offline(bench, 0)
    hosted(bench, 3)
    assert bench.proc.start_one_more(bench.actor(), 3)
    assert bench.map(0) == const.VC_STARTED


def test_no_more_than_cores_run(bench: Bench) -> None:
    bench.set(bench.at.procinfo + const.PI_CORES, 2)
    for v in range(4):
        offline(bench, v)
    sender = bench.actor()
    assert [bench.proc.start_one_more(sender, 0) for _ in range(3)] == [True, True, False]
    assert bench.proc.nr_running(bench.at) == 2


def test_dead_givers_vcore_does_not_use_up_the_cores(bench: Bench) -> None:
    """It counts as running; so it is woken instead of refused."""
    bench.set(bench.at.procinfo + const.PI_CORES, 1)
    offline(bench, 1)
    starting(bench, 1)
    assert bench.proc.start_one_more(bench.actor(), 0)
    assert bench.map(1) == const.VC_STARTED


def test_only_a_waiting_process_is_woken(bench: Bench) -> None:
    offline(bench, 0)
    assert bench.state() == const.P_WAITING
    bench.proc.set_proc_state(bench.at, const.P_RUNNABLE_M)
    bench.proc.proc_wakeup(bench.actor())
    assert bench.map(0) == const.VC_OFFLINE
    bench.proc.set_proc_state(bench.at, const.P_WAITING)
    bench.proc.proc_wakeup(bench.actor())
    assert bench.map(0) == const.VC_STARTED


def test_waiting_process_is_woken_though_a_giver_died(bench: Bench) -> None:
    offline(bench, 0)
    starting(bench, 0)
    bench.proc.proc_wakeup(bench.actor())
    assert bench.map(0) == const.VC_STARTED


# ---- states ----------------------------------------------------------------------------------------------------------


def test_dying_is_never_left(bench: Bench) -> None:
    bench.set(bench.at.procinfo + const.PI_STATE, const.P_DYING)
    for state in range(7):
        bench.proc.set_proc_state(bench.at, state)
    hosted(bench)
    assert bench.state() == const.P_DYING


def test_each_state_has_an_epoch_of_its_own(bench: Bench) -> None:
    at = bench.at.procinfo + const.PI_STATE
    bench.proc.set_proc_state(bench.at, const.P_WAITING)
    before = bench.get(at)
    bench.proc.set_proc_state(bench.at, const.P_WAITING)
    assert bench.get(at) != before


def test_epoch_wraps(bench: Bench) -> None:
    at = bench.at.procinfo + const.PI_STATE
    bench.set(at, 2**64 - 256 | const.P_RUNNING_M)
    bench.proc.set_proc_state(bench.at, const.P_WAITING)
    assert bench.get(at) == const.P_WAITING


def test_last_yielder_leaves_the_process_waiting(bench: Bench) -> None:
    one, other = hosted(bench, 0), hosted(bench, 1)
    assert bench.proc.proc_yield(one, 0)
    assert bench.state() == const.P_RUNNING_M
    assert bench.proc.proc_yield(other, 1)
    assert bench.state() == const.P_WAITING


def test_host_that_comes_online_ends_the_waiting(bench: Bench) -> None:
    seg = offline(bench)
    bench.proc.startcore(bench.actor(), 0)
    bench.proc.vcore_online(seg, 0)
    assert (bench.map(0), bench.state()) == (const.VC_ONLINE, const.P_RUNNING_M)


# ---- yielding --------------------------------------------------------------------------------------------------------


def test_yield_gives_the_core_back(bench: Bench) -> None:
    seg = hosted(bench)
    assert bench.proc.proc_yield(seg, 0)
    assert bench.map(0) == const.VC_OFFLINE


def test_yield_is_refused_while_something_is_pending(bench: Bench) -> None:
    seg = hosted(bench)
    bench.set_vcpd(0, const.VCPD_NOTIF_PENDING, 1)
    assert not bench.proc.proc_yield(seg, 0)
    assert bench.map(0) == const.VC_ONLINE


def test_yield_of_one_who_was_given_a_core_is_refused_once(bench: Bench) -> None:
    """Somebody gave it a core between two looks at its word; it runs, and may yield the next time."""
    seg = hosted(bench)
    bench.set_map(0, const.VC_STARTED, bench.actor().me)
    assert not bench.proc.proc_yield(seg, 0)
    assert bench.map(0) == const.VC_ONLINE
    assert bench.proc.proc_yield(seg, 0)


def test_preempted_vcore_may_sleep(bench: Bench) -> None:
    seg = hosted(bench)
    bench.proc.proc_preempt_core(bench.actor(), 0)
    assert bench.proc.proc_yield(seg, 0)
    assert bench.map(0) == const.VC_PREEMPTED


def test_yield_against_pending_at_any_access(step_life: StepLife) -> None:
    """Order 5: pending is written, then the vcoremap is read: either the yielder stays, or the sender sees it gone."""
    for n in range(100):
        bench = Bench(step_life)
        seg = hosted(bench)
        told: list[bool] = []

        def meanwhile(bench: Bench = bench, told: list[bool] = told) -> None:
            bench.set_vcpd(0, const.VCPD_NOTIF_PENDING, 1)
            told.append(bench.proc.vcore_will_look(bench.at, 0))

        gone: list[bool] = []
        more = step_life.interrupted(
            n, lambda bench=bench, seg=seg, gone=gone: gone.append(bench.proc.proc_yield(seg, 0)), meanwhile
        )
        if not more:
            break
        assert not (gone[0] and told[0]), f"at access {n}"
        assert gone[0] == (bench.map(0) == const.VC_OFFLINE)
    assert n > 4


def test_yield_against_a_given_core_at_any_access(step_life: StepLife) -> None:
    """A vcore that is given a core while it yields does not sleep on it."""
    for n in range(100):
        bench = Bench(step_life)
        seg = hosted(bench)
        gone: list[bool] = []
        more = step_life.interrupted(
            n,
            lambda bench=bench, seg=seg, gone=gone: gone.append(bench.proc.proc_yield(seg, 0)),
            lambda bench=bench: bench.proc.startcore(bench.actor(), 0),
        )
        if gone[0]:
            assert bench.map(0) in (const.VC_OFFLINE, const.VC_STARTED), f"at access {n}"
            assert bench.map(0) == const.VC_STARTED or bench.state() == const.P_WAITING, f"at access {n}"
        else:
            assert bench.proc.proc_yield(seg, 0) or bench.proc.proc_yield(seg, 0)
        if not more:
            break
    assert n > 4


def test_two_yielders_at_any_access_leave_the_process_waiting(step_life: StepLife) -> None:
    for n in range(100):
        bench = Bench(step_life)
        one, other = hosted(bench, 0), hosted(bench, 1)
        more = step_life.interrupted(
            n,
            lambda bench=bench, one=one: bench.proc.proc_yield(one, 0),
            lambda bench=bench, other=other: bench.proc.proc_yield(other, 1),
        )
        if not more:
            break
        assert bench.state() == const.P_WAITING, f"at access {n}"
    assert n > 4


def test_waiting_is_not_said_over_a_vcore_that_starts(step_life: StepLife) -> None:
    for n in range(100):
        bench = Bench(step_life)
        one, other = hosted(bench, 0), offline(bench, 1)

        def meanwhile(bench: Bench = bench, other: Any = other) -> None:
            bench.proc.startcore(bench.actor(), 1)
            bench.proc.vcore_online(other, 1)

        more = step_life.interrupted(n, lambda bench=bench, one=one: bench.proc.proc_yield(one, 0), meanwhile)
        if not more:
            break
        assert bench.state() == const.P_RUNNING_M, f"at access {n}"
    assert n > 4


@pytest.mark.parametrize("dead", [True, False], ids=["killed", "stopped"])
def test_giver_may_die_or_stop_at_any_access(step_life: StepLife, dead: bool) -> None:
    """Whatever it leaves, the next one who has news gets the vcore going."""
    for n in range(100):
        bench = Bench(step_life)
        seg, giver, sender = offline(bench), bench.actor(), bench.actor()
        died = step_life.dies(n, lambda bench=bench, giver=giver: bench.proc.startcore(giver, 0))
        if dead:
            bench.kill(giver)
        woken = len(bench.memory.woken)
        assert bench.proc.startcore(sender, 0)
        assert bench.map(0) == const.VC_STARTED
        assert len(bench.memory.woken) > 0, f"gone before access {n}"
        assert bench.proc.vcore_online(seg, 0)
        assert bench.state() == const.P_RUNNING_M
        if not died:
            break
        assert woken <= 2
    assert n > 5


# ---- hosts -----------------------------------------------------------------------------------------------------------


def test_vcore_has_one_host(bench: Bench) -> None:
    hosted(bench)
    assert not bench.recover_module.host_vcore(bench.actor(), 0)


def test_dead_hosts_vcore_can_be_hosted(bench: Bench) -> None:
    bench.kill(hosted(bench))
    assert bench.recover_module.host_vcore(bench.actor(), 0)


def test_vcore_whose_host_left_can_be_hosted(bench: Bench) -> None:
    seg = hosted(bench)
    bench.proc.unhost_vcore(seg, 0)
    assert bench.map(0) == const.VC_NOHOST
    assert bench.recover_module.host_vcore(bench.actor(), 0)


def test_living_hosts_vcore_is_not_taken_from_it(bench: Bench) -> None:
    hosted(bench)
    bench.proc.unhost_vcore(bench.actor(), 0)
    assert bench.map(0) == const.VC_ONLINE


def test_last_host_that_leaves_leaves_the_process_waiting(bench: Bench) -> None:
    seg = hosted(bench)
    bench.proc.unhost_vcore(seg, 0)
    assert bench.state() == const.P_WAITING


def test_two_hosts_at_any_access_do_not_get_one_vcore(step_life: StepLife) -> None:
    for n in range(100):
        bench = Bench(step_life)
        bench.kill(hosted(bench))
        one, other = bench.actor(), bench.actor()
        got: list[bool] = []
        more = step_life.interrupted(
            n,
            lambda bench=bench, one=one, got=got: got.append(bench.recover_module.host_vcore(one, 0)),
            lambda bench=bench, other=other, got=got: got.append(bench.recover_module.host_vcore(other, 0)),
        )
        assert sum(got) == 1, f"at access {n}"
        if not more:
            break
    assert n > 4


def test_late_undertaker_at_any_access_leaves_the_next_host_alone(step_life: StepLife) -> None:
    for n in range(100):
        bench = Bench(step_life)
        bench.kill(hosted(bench))
        watcher, host = bench.actor(), bench.actor()
        more = step_life.interrupted(
            n,
            lambda bench=bench, watcher=watcher: bench.proc.unhost_vcore(watcher, 0),
            lambda bench=bench, host=host: bench.recover_module.host_vcore(host, 0),
        )
        if not more:
            break
        assert bench.map(0) == const.VC_STARTING, f"at access {n}"
        assert not bench.recover_module.host_vcore(bench.actor(), 0), f"at access {n}"
    assert n > 4


def test_host_may_die_at_any_access_of_its_start(step_life: StepLife) -> None:
    for n in range(100):
        bench = Bench(step_life)
        host = bench.actor()
        died = step_life.dies(n, lambda bench=bench, host=host: bench.recover_module.host_vcore(host, 0))
        bench.kill(host)
        assert bench.recover_module.host_vcore(bench.actor(), 0), f"dead before access {n}"
        assert bench.map(0) == const.VC_STARTING
        if not died:
            break
    assert n > 4


# ---- preemption ------------------------------------------------------------------------------------------------------


def test_preempted_vcore_says_so_and_is_not_locked(bench: Bench) -> None:
    hosted(bench, 0)
    hosted(bench, 1)
    assert bench.proc.proc_preempt_core(bench.actor(), 0)
    assert bench.map(0) == const.VC_PREEMPTED
    assert bench.vcpd(0, const.VCPD_FLAGS) & (const.VC_K_LOCK | const.VC_PREEMPTED_FLAG) == const.VC_PREEMPTED_FLAG
    assert bench.state() == const.P_RUNNING_M


def test_vcore_without_a_core_cannot_be_preempted(bench: Bench) -> None:
    offline(bench)
    assert not bench.proc.proc_preempt_core(bench.actor(), 0)
    assert bench.vcpd(0, const.VCPD_FLAGS) & (const.VC_K_LOCK | const.VC_PREEMPTED_FLAG) == 0


def test_last_core_taken_leaves_the_process_waiting(bench: Bench) -> None:
    hosted(bench)
    bench.proc.proc_preempt_core(bench.actor(), 0)
    assert bench.state() == const.P_WAITING


def test_all_cores_are_taken_at_once(bench: Bench) -> None:
    hosted(bench, 0)
    offline(bench, 1)
    hosted(bench, 2)
    assert bench.proc.proc_preempt_all(bench.actor()) == 2
    assert [bench.map(v) for v in range(3)] == [const.VC_BULK, const.VC_OFFLINE, const.VC_BULK]
    assert bench.state() == const.P_RUNNABLE_M


# ---- notifying -------------------------------------------------------------------------------------------------------


def test_notify_makes_pending(bench: Bench) -> None:
    hosted(bench)
    bench.proc.proc_notify(bench.actor(), 0)
    assert bench.pending(0)


@pytest.mark.parametrize(
    ("state", "disabled", "interrupted"),
    [
        (const.VC_ONLINE, 0, [2]),
        (const.VC_ONLINE, 1, []),
        (const.VC_OFFLINE, 0, []),
        (const.VC_STARTED, 0, []),
        (const.VC_NOHOST, 0, []),
    ],
)
def test_only_user_code_is_interrupted(lives: Any, state: int, disabled: int, interrupted: list[int]) -> None:
    bench = Bench(lives("interpreted"))
    bench.set_map(2, state)
    bench.set_vcpd(2, const.VCPD_NOTIF_DISABLED, disabled)
    bench.proc.proc_notify(bench.actor(), 2)
    assert bench.world.interrupted == interrupted


# ---- the lock --------------------------------------------------------------------------------------------------------


def test_lock_has_one_owner(bench: Bench) -> None:
    one, other = bench.actor(), bench.actor()
    assert bench.proc.proc_lock(one)
    assert bench.proc.proc_lock(one)
    assert not bench.proc.proc_lock(other)
    bench.proc.proc_unlock(one)
    assert bench.proc.proc_lock(other)


def test_lock_of_a_dead_owner_is_taken_over(bench: Bench) -> None:
    one, other = bench.actor(), bench.actor()
    bench.proc.proc_lock(one)
    bench.kill(one)
    assert bench.proc.proc_lock(other)


def test_former_owner_cannot_unlock(bench: Bench) -> None:
    one, other = bench.actor(), bench.actor()
    bench.proc.proc_lock(one)
    bench.kill(one)
    bench.proc.proc_lock(other)
    bench.proc.proc_unlock(one)
    assert bench.get(bench.at.procinfo + const.PI_LOCK, 4) == other.me


def test_epoch_of_the_lock_rises_with_each_owner(bench: Bench) -> None:
    seg = bench.actor()
    epochs = []
    for _ in range(3):
        bench.proc.proc_lock(seg)
        epochs.append(bench.get(bench.at.procinfo + const.PI_LOCK) >> 32)
        bench.proc.proc_unlock(seg)
    assert epochs == [1, 2, 3]
