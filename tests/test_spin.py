"""What a vcore with nothing to do watches: whatever becomes READY ends its spinning, in both lives."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import Bench
from upcall.kern import const


@pytest.fixture
def bench(life: Any) -> Bench:
    return Bench(life)


def spins(bench: Bench, vc: Any, watches: Any, n: int) -> bool:
    """Whether a spin whose time is up already goes on to its end: nothing that it watches has changed."""
    return not bench.spin_module.spin(vc.s, vc.vcoreid, watches, n, 0)


def test_a_message_whose_sender_was_in_between_ends_the_spinning(bench: Bench) -> None:
    """The slot was CLAIMED when the cursor came by, so the word it noted is the one behind; READY must be seen all the
    same. Found by `roundtrip-polling`: two vcores with a long `spin_us` stood still until it was over."""
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    assert bench.send(sender, 1) == const.OK
    bench.run(vc)
    mbox = bench.event.queue_mbox(bench.at, 0)
    where = bench.ucq.claim_slot(sender, mbox)
    at = bench.ucq.slot_at(bench.at, where)
    bench.run(vc)
    watches = bench.spin_module.Watches()
    n = bench.spin_module.watch(vc, watches)
    assert n != const.NO_VCORE
    assert spins(bench, vc, watches, n)
    bench.ucq.fill_slot(sender, at, bench.message(2))
    bench.set(at, bench.layout.word(const.READY, where >> 32, sender.me))
    assert not spins(bench, vc, watches, n)
    assert bench.spin_module.watch(vc, watches) == const.NO_VCORE
    bench.run(vc)
    assert vc.args == [1, 2]


def test_an_event_that_a_dead_vcore_had_in_hand_ends_the_spinning(bench: Bench) -> None:
    """It is READY again behind the spinning vcore's cursor, and nobody is told, since that vcore answers for the queue."""
    bench.queue()
    dead, vc, sender = bench.vcore(0), bench.vcore(1), bench.actor()

    def die() -> None:
        raise KeyboardInterrupt

    dead.during = die
    assert bench.send(sender, 1) == const.OK
    with pytest.raises(KeyboardInterrupt):
        bench.run(dead)
    bench.vcore_module.look_at(vc, 0)
    bench.run(vc)
    bench.set(bench.layout.evq_at(bench.at, 0) + const.EVQ_ALERT, const.ALERT_POLLED | vc.s.me << 32)
    watches = bench.spin_module.Watches()
    n = bench.spin_module.watch(vc, watches)
    assert spins(bench, vc, watches, n)
    bench.bury(dead.s, by=sender, vcoreid=0)
    assert not bench.pending(1)
    assert not spins(bench, vc, watches, n)
    bench.run(vc)
    assert vc.args == [1]


@pytest.mark.parametrize("last", [0, 24])
def test_a_vcore_with_more_to_watch_than_it_can_yields_at_once(life: Any, last: int) -> None:
    """Or it would be blind, as long as `spin_us`, for what it leaves out."""
    bench = Bench(life, geometry=(2, 25, 64, 8, 4, 64, 1), vcores=2)
    vc, sender = bench.vcore(0), bench.actor()
    for queue in range(25):
        bench.queue(queue)
        assert bench.send(sender, queue, queue=queue) == const.OK
    bench.run(vc)
    watches = bench.spin_module.Watches()
    n = bench.spin_module.watch(vc, watches)
    assert n > const.WATCH_MAX
    assert n != const.NO_VCORE
    assert not bench.spin_module.spin(vc.s, vc.vcoreid, watches, n, 1 << 62)  # which is never
    assert bench.send(sender, 100, queue=last) == const.OK
    assert not bench.vcore_module.vcore_yield(vc)
    bench.idle(vc)
    assert sorted(vc.args) == [*range(25), 100]


def test_passed_over_slots_count_among_what_is_watched(bench: Bench) -> None:
    """As many as a cursor can pass over, in one queue: all of them are watched."""
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    assert bench.send(sender, 1) == const.OK
    bench.run(vc)
    mbox = bench.event.queue_mbox(bench.at, 0)
    claimed = [bench.ucq.claim_slot(sender, mbox) for _ in range(const.SKIP_ASK)]
    bench.run(vc)
    watches = bench.spin_module.Watches()
    n = bench.spin_module.watch(vc, watches)
    assert n == 3 + const.SKIP_ASK
    assert spins(bench, vc, watches, n)
    at = bench.ucq.slot_at(bench.at, claimed[-1])
    bench.ucq.fill_slot(sender, at, bench.message(2))
    bench.set(at, bench.layout.word(const.READY, claimed[-1] >> 32, sender.me))
    assert not spins(bench, vc, watches, n)
