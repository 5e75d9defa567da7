"""Sending, end to end: whatever a queue's flags say and whatever the vcores are doing, the event is handled, and then
everyone sleeps again. The seed's functions one by one are in test_seed.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from protocol import TYPE, USUAL, Bench, StepLife
from upcall.kern import const

TOLD = const.EVENT_INDIR | const.EVENT_FALLBACK
EXTRA = {
    "": 0,
    "IPI": const.EVENT_IPI,
    "NOMSG": const.EVENT_NOMSG,
    "NOTHROTTLE": const.EVENT_NOTHROTTLE,
    "ROUNDROBIN": const.EVENT_ROUNDROBIN,
    "APPRO": const.EVENT_VCORE_APPRO,
    "MUST_RUN": const.EVENT_VCORE_MUST_RUN,
    "JUSTHANDLEIT": const.EVENT_JUSTHANDLEIT,
    "THREAD": const.EVENT_THREAD,
}
PAIRS = [pair for n in (1, 2) for pair in itertools.combinations(EXTRA, n)]


def all_asleep(bench: Bench, n: int) -> list[Any]:
    return [bench.asleep(v) for v in range(n)]


def all_running(bench: Bench, n: int) -> list[Any]:
    vcores = [bench.vcore(v) for v in range(n)]
    for vc in vcores:
        bench.run(vc)
    return vcores


def last_running(bench: Bench, n: int) -> list[Any]:
    vcores = [bench.asleep(v) for v in range(n)]
    bench.proc.startcore(bench.actor(), n - 1)
    bench.wake(vcores[-1])
    return vcores


def nobody_yet(bench: Bench, n: int) -> list[Any]:
    return []


def all_taken(bench: Bench, n: int) -> list[Any]:
    vcores = all_running(bench, n)
    bench.proc.proc_preempt_all(bench.actor())
    return vcores


def first_left(bench: Bench, n: int) -> list[Any]:
    """Vcore 0 has no host any more; the others sleep."""
    vcores = all_asleep(bench, n)
    bench.proc.unhost_vcore(vcores[0].s, 0)
    return vcores[1:] if n > 1 else []


def giver_died(bench: Bench, n: int) -> list[Any]:
    """Somebody was about to wake every vcore, and died."""
    vcores = all_asleep(bench, n)
    dead = bench.actor()
    for vc in vcores:
        bench.set_map(vc.vcoreid, const.VC_STARTING, dead.me)
    bench.kill(dead)
    return vcores


def flag_came_late(bench: Bench, n: int) -> list[Any]:
    """A sender said VC_CAN_RCV_MSG of vcores that sleep again, and the state still says RUNNING."""
    vcores = all_asleep(bench, n)
    for vc in vcores:
        bench.event.set_vcore_msgable(bench.at, vc.vcoreid)
    bench.proc.set_proc_state(bench.at, bench.proc.running_state(bench.at))
    return vcores


WORLDS = [all_asleep, all_running, last_running, nobody_yet, all_taken, first_left, giver_died, flag_came_late]


def handled(vcores: list[Any]) -> list[int]:
    """Types that were handled, as messages or bits."""
    return sorted(kind for vc in vcores for kind in [*vc.bits, *(kind for kind, _ in vc.got)])


def rest(bench: Bench, vcores: list[Any]) -> list[Any]:
    """All come to rest; hosts that are missing come first."""
    hosted = {vc.vcoreid for vc in vcores}
    if not vcores:
        vcores = [bench.vcore(v) for v in range(bench.proc.num_vcores(bench.at)) if v not in hosted]
    bench.settle(*[vc for vc in vcores if bench.map(vc.vcoreid) != const.VC_NOHOST])
    return vcores


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
@pytest.mark.parametrize("extra", PAIRS, ids=lambda pair: "+".join(filter(None, pair)) or "none")
def test_event_is_handled_once_whatever_the_flags(
    lives: Any, extra: tuple[str, ...], world: Callable[[Bench, int], list[Any]], number: int
) -> None:
    """G1, G2, G5: a queue with a mailbox of its own, INDIR and FALLBACK."""
    flags = TOLD
    for name in extra:
        flags |= EXTRA[name]
    bench = Bench(lives("interpreted"), vcores=number)
    bench.queue(flags=flags)
    vcores = world(bench, number)
    sender = bench.actor()
    for i in range(3):
        assert bench.send(sender, i, ev_type=TYPE + i, vcore=i % number) == const.OK
        vcores = rest(bench, vcores)
        assert handled(vcores) == [TYPE + k for k in range(i + 1)]
    assert bench.state() == const.P_WAITING


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
@pytest.mark.parametrize(
    "flags", [0, const.EVENT_IPI, const.EVENT_NOMSG, const.EVENT_VCORE_MUST_RUN, const.EVENT_ROUNDROBIN]
)
def test_spammed_event_is_handled_by_somebody(
    life: Any, flags: int, world: Callable[[Bench, int], list[Any]], number: int
) -> None:
    bench = Bench(life, vcores=number, geometry=(4, 4, 64, 32, 4, 16, 8))
    bench.queue(flags=flags | const.EVENT_SPAM_PUBLIC, own=False)
    vcores = world(bench, number)
    sender = bench.actor()
    for i in range(3):
        assert bench.send(sender, i, ev_type=TYPE + i) == const.OK
        vcores = rest(bench, vcores)
        assert set(handled(vcores)) == {TYPE + k for k in range(i + 1)}


@pytest.mark.parametrize("world", [all_asleep, all_running, last_running, giver_died, flag_came_late, all_taken])
@pytest.mark.parametrize("vcoreid", [0, 3])
def test_private_event_is_handled_by_its_vcore_only(
    life: Any, world: Callable[[Bench, int], list[Any]], vcoreid: int
) -> None:
    """G7."""
    bench = Bench(life, geometry=(4, 4, 64, 32, 4, 16, 8))
    bench.queue(flags=const.EVENT_IPI | const.EVENT_VCORE_PRIVATE, own=False, vcore=vcoreid)
    vcores = world(bench, 4)
    assert bench.send(bench.actor(), 7) == const.OK
    bench.settle(*vcores)
    assert [vc.args for vc in vcores] == [[7] if v == vcoreid else [] for v in range(4)]


@pytest.mark.parametrize("world", [all_asleep, all_running, last_running, giver_died, flag_came_late, all_taken])
@pytest.mark.parametrize("flags", [0, const.EVENT_VCORE_PRIVATE, const.EVENT_NOMSG])
def test_event_for_one_vcore_is_handled_by_it(life: Any, world: Callable[[Bench, int], list[Any]], flags: int) -> None:
    bench = Bench(life, geometry=(4, 4, 64, 32, 4, 16, 8))
    vcores = world(bench, 4)
    assert bench.event.post_vcore_event(bench.actor(), bench.message(7), 2, flags) == const.OK
    bench.settle(*vcores)
    assert handled(vcores[2:3]) == [TYPE]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("flags", [0, const.EVENT_IPI, const.EVENT_NOMSG, USUAL])
def test_single_core_process_handles_whatever_it_is_sent(life: Any, flags: int, own: bool) -> None:
    """The seed spams vcore 0 whatever the queue says; ours keeps the queue's mailbox, and tells vcore 0 all the same."""
    for world in (all_asleep, all_running, giver_died, flag_came_late):
        bench = Bench(life, vcores=1, geometry=(4, 4, 64, 32, 4, 16, 8))
        bench.queue(flags=flags, own=own)
        vcores = world(bench, 1)
        for i in range(3):
            assert bench.send(bench.actor(), i, ev_type=TYPE + i) == const.OK
            bench.settle(*vcores)
            assert handled(vcores) == [TYPE + k for k in range(i + 1)], world.__name__


def test_must_run_event_reaches_one_who_runs(life: Any) -> None:
    """G8: the wanted vcore can be messaged, but sleeps."""
    bench = Bench(life)
    bench.queue(flags=const.EVENT_SPAM_PUBLIC | const.EVENT_VCORE_MUST_RUN, own=False, vcore=0)
    vcores = last_running(bench, 4)
    bench.event.set_vcore_msgable(bench.at, 0)
    bench.send(bench.actor(), 1)
    assert bench.map(0) == const.VC_OFFLINE
    bench.settle(*vcores)
    assert vcores[3].args == [1]


def test_one_event_wakes_one_vcore(life: Any) -> None:
    bench = Bench(life)
    bench.queue()
    all_asleep(bench, 4)
    sender = bench.actor()
    for i in range(5):
        bench.send(sender, i)
    assert [bench.map(v) for v in range(4)].count(const.VC_STARTED) == 1
    assert bench.counter(sender, const.AS_WAKES) == 1


def test_sender_behind_a_throttle_makes_no_system_call(life: Any) -> None:
    """G9: once the telling is done."""
    bench = Bench(life)
    bench.queue()
    all_asleep(bench, 1)
    one, other = bench.actor(), bench.actor()
    bench.send(one, 1)
    bench.counter(other, const.AS_SYSCALLS)
    for i in range(3):
        bench.send(other, i)
    assert bench.counter(other, const.AS_SYSCALLS) <= 1  # pages may have to be made real


def test_full_mailbox_sends_nothing_and_tells_nobody(life: Any) -> None:
    bench = Bench(life)
    bench.queue(limit=2)
    (vc,) = all_asleep(bench, 1)
    sender = bench.actor()
    assert [bench.send(sender, i) for i in range(3)] == [const.OK, const.OK, const.FULL]
    bench.settle(vc)
    assert vc.args == [0, 1]
    assert bench.send(sender, 3) == const.OK


def test_events_of_many_senders_to_many_queues_are_all_handled(life: Any) -> None:
    bench = Bench(life, geometry=(4, 4, 64, 32, 4, 64, 8))
    vcores = all_asleep(bench, 4)
    flags = [USUAL, USUAL | const.EVENT_ROUNDROBIN, TOLD, USUAL | const.EVENT_NOTHROTTLE]
    for queue in range(4):
        bench.queue(queue, flags[queue], vcore=queue)
    senders = [bench.actor() for _ in range(4)]
    sent = []
    for i in range(200):
        assert bench.send(senders[i * 7 % 4], i, queue=i * 5 % 4) == const.OK
        sent.append(i)
        if i % 11 == 0:
            bench.settle(*vcores)
    bench.settle(*vcores)
    assert sorted(arg for vc in vcores for arg in vc.args) == sent
    assert not [vc for vc in vcores if vc.torn]
    assert bench.state() == const.P_WAITING


def test_events_of_a_sender_are_taken_in_order(life: Any) -> None:
    """G6: by one vcore, as they were sent."""
    bench = Bench(life)
    bench.queue()
    (vc,) = all_asleep(bench, 1)
    one, other = bench.actor(), bench.actor()
    for i in range(20):
        bench.send((one, other)[i % 2], i)
    bench.settle(vc)
    assert vc.args == list(range(20))


# ---- every death, every meeting --------------------------------------------------------------------------------------

MANNERS = [
    (USUAL, True),
    (USUAL | const.EVENT_NOMSG, True),
    (USUAL | const.EVENT_NOTHROTTLE, True),
    (USUAL, False),
    (const.EVENT_SPAM_PUBLIC, False),
    (const.EVENT_IPI | const.EVENT_VCORE_PRIVATE, False),
]


@pytest.mark.parametrize(("flags", "own"), MANNERS)
@pytest.mark.parametrize("world", [all_asleep, all_running, last_running, nobody_yet, all_taken, flag_came_late])
@pytest.mark.parametrize("dead", [True, False], ids=["killed", "stopped"])
def test_sender_may_die_or_stop_at_any_access(
    step_life: StepLife, world: Callable[[Bench, int], list[Any]], flags: int, own: bool, dead: bool
) -> None:
    """G3 and G1 for the rest: the dying sender's event is handled whole or not at all; the next sender's is handled, with
    nobody there to settle the death, and though the first may be alive, stopped for ever."""
    for n in range(1000):
        bench = Bench(step_life, vcores=2)
        bench.queue(flags=flags, own=own)
        vcores = world(bench, 2)
        dying, other = bench.actor(), bench.actor()
        died = step_life.dies(n, lambda bench=bench, dying=dying: bench.send(dying, 1, ev_type=TYPE + 1))
        if dead:
            bench.kill(dying)
        bench.send(other, 2, ev_type=TYPE + 2)
        vcores = rest(bench, vcores)
        assert TYPE + 2 in handled(vcores), f"gone before access {n}"
        assert set(handled(vcores)) <= {TYPE + 1, TYPE + 2}
        assert not [vc for vc in vcores if vc.torn]
        if not died:
            assert set(handled(vcores)) == {TYPE + 1, TYPE + 2}
            break
    assert n > 5


@pytest.mark.parametrize(("flags", "own"), MANNERS)
def test_senders_may_meet_at_any_access(step_life: StepLife, flags: int, own: bool) -> None:
    for n in range(1000):
        bench = Bench(step_life, vcores=2)
        bench.queue(flags=flags, own=own)
        vcores = all_asleep(bench, 2)
        one, other = bench.actor(), bench.actor()
        more = step_life.interrupted(
            n,
            lambda bench=bench, one=one: bench.send(one, 1, ev_type=TYPE + 1),
            lambda bench=bench, other=other: bench.send(other, 2, ev_type=TYPE + 2),
        )
        bench.settle(*vcores)
        assert set(handled(vcores)) == ({TYPE + 1, TYPE + 2} if more else {TYPE + 1}), f"at access {n}"
        if not more:
            break
    assert n > 5


@pytest.mark.parametrize(("flags", "own"), MANNERS[:5])
def test_sender_against_a_vcore_that_leaves_at_any_access(step_life: StepLife, flags: int, own: bool) -> None:
    """Its host goes in good order while somebody sends to it: the other vcore handles the event."""
    for n in range(1000):
        bench = Bench(step_life, vcores=2)
        bench.queue(flags=flags, own=own)
        leaver, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
        bench.run(leaver)

        def leave(bench: Bench = bench, leaver: Any = leaver) -> None:
            bench.vcore_module.vcore_leave(leaver)
            bench.proc.unhost_vcore(leaver.s, 0)
            bench.recover_module.announce(leaver.s)

        more = step_life.interrupted(n, lambda bench=bench, sender=sender: bench.send(sender, 1), leave)
        if not more:
            break
        bench.settle(other)
        assert handled([leaver, other]) != [], f"at access {n}"
    assert n > 5


@pytest.mark.parametrize(("flags", "own"), MANNERS[:5])
def test_vcore_that_leaves_against_a_sender_at_any_access(step_life: StepLife, flags: int, own: bool) -> None:
    for n in range(3000):
        bench = Bench(step_life, vcores=2)
        bench.queue(flags=flags, own=own)
        leaver, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
        bench.run(leaver)

        def leave(bench: Bench = bench, leaver: Any = leaver) -> None:
            bench.vcore_module.vcore_leave(leaver)
            bench.proc.unhost_vcore(leaver.s, 0)
            bench.recover_module.announce(leaver.s)

        more = step_life.interrupted(n, leave, lambda bench=bench, sender=sender: bench.send(sender, 1))
        if not more:
            break
        bench.settle(other)
        assert handled([leaver, other]) != [], f"at access {n}"
    assert n > 5


@pytest.mark.parametrize("flags", [USUAL, USUAL | const.EVENT_NOMSG, const.EVENT_SPAM_PUBLIC])
def test_vcore_that_comes_first_against_a_sender_at_any_access(step_life: StepLife, flags: int) -> None:
    """Nobody hosts any vcore; the first host comes between any two accesses of a sender."""
    for n in range(1000):
        bench = Bench(step_life, vcores=2)
        bench.queue(flags=flags, own=not flags & const.EVENT_SPAM_PUBLIC)
        sender = bench.actor()
        vcores: list[Any] = []
        more = step_life.interrupted(
            n,
            lambda bench=bench, sender=sender: bench.send(sender, 1),
            lambda bench=bench, vcores=vcores: vcores.append(bench.asleep(1)),
        )
        if not more:
            break
        bench.settle(*vcores)
        assert handled(vcores) != [], f"at access {n}"
    assert n > 5


@pytest.mark.parametrize("away", [const.VC_NOHOST, const.VC_AWAY])
@pytest.mark.parametrize("flags", [0, const.EVENT_IPI])
def test_public_mail_of_a_vcore_without_a_host_that_moves_is_handled_by_another(
    life: Any, flags: int, away: int
) -> None:
    """Its host has died or stopped, all is settled, and nobody comes to take its place: G2 for what is sent then."""
    bench = Bench(life, vcores=3)
    bench.queue(0, flags, vcore=1, own=False)
    vcores = all_asleep(bench, 3)
    if away == const.VC_NOHOST:
        bench.kill(vcores[1].s)
        bench.bury(vcores[1].s, by=bench.actor(), vcoreid=1)
    else:
        bench.set_map(1, const.VC_AWAY, vcores[1].s.me)
    rest = [vcores[0], vcores[2]]
    bench.settle(*rest)
    sender = bench.actor()
    assert bench.send(sender, 7) == const.OK
    bench.settle(*rest)
    assert [arg for vc in rest for _, arg in vc.got] == [7]
    assert bench.event.post_vcore_event(sender, bench.message(8), 1, 0) == const.OK
    bench.settle(*rest)
    assert [arg for vc in rest for _, arg in vc.got] == [7, 8]
    # Private mail is nobody else's.
    assert bench.event.post_vcore_event(sender, bench.message(9), 1, const.EVENT_VCORE_PRIVATE) == const.OK
    bench.settle(*rest)
    assert [arg for vc in rest for _, arg in vc.got] == [7, 8]


@pytest.mark.parametrize("flags", [0, const.EVENT_IPI])
def test_public_mail_against_the_end_of_its_vcores_host_at_any_access(step_life: StepLife, flags: int) -> None:
    """Between any two accesses of the send the host dies, and what it held is settled and announced."""
    for n in itertools.count():
        bench = Bench(step_life, vcores=2)
        bench.queue(0, flags, vcore=1, own=False)
        one, other = all_asleep(bench, 2)
        sender, settler = bench.actor(), bench.actor()
        more = step_life.interrupted(
            n,
            lambda bench=bench, sender=sender: bench.send(sender, 7),
            lambda bench=bench, other=other, settler=settler: bench.bury(other.s, by=settler, vcoreid=1),
        )
        if not more:
            assert n > 5
            return
        bench.settle(one)
        assert [arg for _, arg in one.got] == [7], f"interrupted before access {n}"
