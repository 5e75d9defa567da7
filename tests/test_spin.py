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
