"""A vcore at work: it handles what it was sent, answers for its queues, and never sleeps on work."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import TYPE, USUAL, Bench, StepLife
from upcall.kern import const


@pytest.fixture
def bench(life: Any) -> Bench:
    return Bench(life)


def spam(bench: Bench, seg: Any, vcoreid: int, ev_type: int, arg: int = 0) -> None:
    """A message to a vcore's public mailbox, with nothing of the queue layer."""
    assert bench.event.spam_vcore(seg, vcoreid, bench.message(arg, ev_type=ev_type), 0) == const.OK


# ---- entering --------------------------------------------------------------------------------------------------------


def test_entry_makes_a_vcore_messageable(bench: Bench) -> None:
    bench.vcore(1)
    assert bench.map(1) == const.VC_ONLINE
    assert bench.vcpd(1, const.VCPD_FLAGS) == const.VC_CAN_RCV_MSG


def test_entry_looks_at_its_own_mail_though_nothing_is_pending(bench: Bench) -> None:
    sender = bench.actor()
    bench.ucq.send_ucq_msg(sender, bench.event.get_vcpd_mbox_priv(sender, 0), bench.message(1))
    vc = bench.vcore(0)
    bench.run(vc)
    assert vc.args == [1]


def test_entry_looks_at_every_queue(bench: Bench) -> None:
    sender = bench.actor()
    for queue in range(3):
        bench.queue(queue)
        bench.ucq.send_ucq_msg(sender, bench.event.queue_mbox(sender, queue), bench.message(queue))
    vc = bench.vcore(0)
    bench.run(vc)
    assert sorted(vc.args) == [0, 1, 2]


def test_entry_looks_at_the_mail_of_those_that_nobody_hosts(bench: Bench) -> None:
    spam(bench, bench.actor(), 3, TYPE, 5)
    vc = bench.vcore(0)
    bench.run(vc)
    assert vc.args == [5]


def test_private_mail_of_another_is_nobodys(bench: Bench) -> None:
    sender = bench.actor()
    bench.ucq.send_ucq_msg(sender, bench.event.get_vcpd_mbox_priv(sender, 3), bench.message(5))
    vc = bench.vcore(0)
    bench.run(vc)
    assert vc.args == []
    other = bench.vcore(3)
    bench.run(other)
    assert other.args == [5]


def test_entry_fails_if_the_core_was_taken_again(bench: Bench) -> None:
    vc = bench.asleep(0)
    assert not bench.vcore_module.vcore_entry(vc)


# ---- handling --------------------------------------------------------------------------------------------------------


def test_nothing_pending_nothing_looked_at(bench: Bench) -> None:
    vc = bench.vcore(0)
    bench.run(vc)
    sender = bench.actor()
    bench.ucq.send_ucq_msg(sender, bench.event.get_vcpd_mbox_pub(sender, 0), bench.message(1))
    assert bench.vcore_module.handle_events(vc) == 0
    bench.set_vcpd(0, const.VCPD_NOTIF_PENDING, 1)
    assert bench.vcore_module.handle_events(vc) == 1


def test_private_mail_comes_before_public(bench: Bench) -> None:
    vc = bench.vcore(0)
    sender = bench.actor()
    spam(bench, sender, 0, TYPE, 1)
    bench.event.post_vcore_event(sender, bench.message(2), 0, const.EVENT_VCORE_PRIVATE)
    bench.run(vc)
    assert vc.args == [2, 1]


def test_pending_is_cleared_before_the_look(bench: Bench) -> None:
    """What a handler of this vcore posts to itself is seen in the next round."""
    vc = bench.vcore(0)
    bench.run(vc)
    sender = bench.actor()
    spam(bench, sender, 0, TYPE, 1)

    def once() -> None:
        vc.during = lambda: None
        assert not bench.pending(0)
        spam(bench, sender, 0, TYPE, 2)

    vc.during = once
    bench.run(vc)
    assert vc.args == [1, 2]


def test_messages_come_before_bits(bench: Bench) -> None:
    vc = bench.vcore(0)
    bench.run(vc)
    sender = bench.actor()
    order: list[str] = []
    bench.event.spam_vcore(sender, 0, bench.message(ev_type=40), const.EVENT_NOMSG)
    spam(bench, sender, 0, TYPE, 1)
    vc.during = lambda: order.append("bit" if vc.bits else "message")
    bench.run(vc)
    assert order == ["message", "bit"]


@pytest.mark.parametrize("ev_type", [1, 32, 62, 63])
def test_bit_is_delivered_as_its_type(bench: Bench, ev_type: int) -> None:
    vc = bench.vcore(0)
    bench.run(vc)
    bench.event.spam_vcore(bench.actor(), 0, bench.message(ev_type=ev_type), const.EVENT_NOMSG)
    bench.run(vc)
    assert vc.bits == [ev_type]


def test_bits_of_every_word_of_the_bitmap_are_delivered(life: Any) -> None:
    bench = Bench(life, geometry=(1, 1, 1024, 8, 4, 4, 1), vcores=1)
    vc = bench.vcore(0)
    types = [33, 64, 127, 128, 500, 1023]
    for ev_type in types:
        bench.event.spam_vcore(bench.actor(), 0, bench.message(ev_type=ev_type), const.EVENT_NOMSG)
        bench.actors = 1
    bench.run(vc)
    assert vc.bits == types


def test_bit_of_no_event_is_dropped(bench: Bench) -> None:
    vc = bench.vcore(0)
    bench.event.spam_vcore(bench.actor(), 0, bench.message(ev_type=const.EV_NONE), const.EVENT_NOMSG)
    bench.run(vc)
    assert vc.bits == []


def test_bit_set_in_its_own_handler_is_delivered_again(bench: Bench) -> None:
    vc = bench.vcore(0)
    bench.run(vc)
    sender = bench.actor()
    again = [1]

    def set_again() -> None:
        if again:
            again.pop()
            bench.event.spam_vcore(sender, 0, bench.message(ev_type=40), const.EVENT_NOMSG)

    vc.during = set_again
    bench.event.spam_vcore(sender, 0, bench.message(ev_type=40), const.EVENT_NOMSG)
    bench.run(vc)
    assert vc.bits == [40, 40]


def test_stop_at_once_leaves_the_rest(bench: Bench) -> None:
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    for i in range(5):
        bench.send(sender, i)
    vc.during = lambda: bench.set(bench.at.procinfo + const.PI_STOP, const.STOP_NOW, 4)
    bench.vcore_module.work(vc)
    assert vc.args == [0]
    assert bench.waiting(bench.event.queue_mbox(sender, 0)) == [1, 2, 3, 4]


def test_preempted_vcore_takes_no_more(bench: Bench) -> None:
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    for i in range(5):
        bench.send(sender, i)
    vc.during = lambda: bench.set_map(0, const.VC_PREEMPTED, vc.s.me)
    bench.vcore_module.work(vc)
    assert vc.args == [0]


# ---- EV_EVENT and who answers ----------------------------------------------------------------------------------------


def test_indirection_leads_to_the_queue(bench: Bench) -> None:
    bench.queue(2)
    vc, sender = bench.vcore(0), bench.actor()
    bench.run(vc)
    assert bench.send(sender, 7, queue=2) == const.OK
    bench.run(vc)
    assert vc.got == [(TYPE, 7)]


def test_vcore_answers_for_the_queue_it_looks_at(bench: Bench) -> None:
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    bench.send(sender, 1)
    bench.run(vc)
    assert bench.alert() == const.ALERT_POLLED | (vc.s.me << 32)


def test_answered_queue_needs_no_indirection(bench: Bench) -> None:
    """G9: while a vcore looks by itself, sending is one message and nothing else."""
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    bench.send(sender, 1)
    bench.run(vc)
    before = bench.counter(sender, const.AS_INDIRS), bench.counter(sender, const.AS_SYSCALLS)
    bench.send(sender, 2)
    assert (bench.counter(sender, const.AS_INDIRS), bench.counter(sender, const.AS_SYSCALLS)) == before
    bench.run(vc)
    assert vc.args == [1, 2]


def test_sleeper_answers_for_nothing(bench: Bench) -> None:
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    bench.send(sender, 1)
    bench.idle(vc)
    assert bench.alert() == const.ALERT_NONE
    assert vc.active == []


def test_queue_of_another_living_vcore_stays_its(bench: Bench) -> None:
    bench.queue()
    one, other, sender = bench.vcore(0), bench.vcore(1), bench.actor()
    bench.send(sender, 1)
    bench.run(one)
    spam(bench, sender, 1, const.EV_EVENT, 0)
    bench.run(other)
    assert bench.alert() == const.ALERT_POLLED | (one.s.me << 32)
    bench.idle(other)
    assert bench.alert() == const.ALERT_POLLED | (one.s.me << 32)


def test_queue_without_a_mailbox_is_not_answered_for(bench: Bench) -> None:
    """Its messages are in vcores' mailboxes. A promise to look at it, left over, would throttle it for ever."""
    bench.queue(flags=USUAL, own=False)
    vc, sender = bench.asleep(0), bench.actor()
    for i in range(3):
        assert bench.send(sender, i) == const.OK
        bench.settle(vc)
        assert vc.args == list(range(i + 1))


def test_indirection_as_a_bit_looks_at_every_queue(bench: Bench) -> None:
    vc, sender = bench.vcore(0), bench.actor()
    bench.run(vc)
    for queue in range(3):
        bench.queue(queue)
        bench.ucq.send_ucq_msg(sender, bench.event.queue_mbox(sender, queue), bench.message(queue))
    bench.event.spam_vcore(sender, 0, bench.message(ev_type=const.EV_EVENT), const.EVENT_NOMSG)
    bench.run(vc)
    assert sorted(vc.args) == [0, 1, 2]


@pytest.mark.parametrize("queue", [4, 1000, 2**32, 2**64 - 1])
def test_indirection_to_no_queue_is_dropped(bench: Bench, queue: int) -> None:
    vc = bench.vcore(0)
    msg = bench.message(ev_type=const.EV_EVENT)
    msg.arg3 = queue
    bench.event.spam_vcore(bench.actor(), 0, msg, 0)
    bench.idle(vc)
    assert vc.got == []


def test_indirection_to_a_queue_that_is_not_there_does_not_keep_a_vcore_awake(bench: Bench) -> None:
    vc = bench.vcore(0)
    spam(bench, bench.actor(), 0, const.EV_EVENT, 3)
    bench.idle(vc)
    assert vc.active == []


def test_slow_handler_is_not_relied_on(bench: Bench) -> None:
    """Before a handler that may take long the vcore takes its promise back, and asks for help if more waits."""
    bench.queue()
    vc, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    bench.send(sender, 1)
    bench.send(sender, 2)
    cur = None

    def slow() -> None:
        vc.during = lambda: None
        bench.vcore_module.before_handler(vc, cur, 0, True)
        assert bench.alert() == const.ALERT_NONE
        assert bench.map(1) == const.VC_STARTED
        bench.vcore_module.after_handler(vc, 0, True)
        assert bench.alert() == const.ALERT_POLLED | (vc.s.me << 32)

    bench.vcore_module.look_at(vc, 0)
    cur = bench.vcore_module.cursor_of(vc, 0)
    vc.during = slow
    bench.run(vc)
    assert vc.args == [1, 2]
    assert bench.vcpd(0, const.VCPD_FLAGS) == const.VC_CAN_RCV_MSG
    bench.settle(other)


def test_news_for_one_in_a_slow_handler_start_another(bench: Bench) -> None:
    bench.queue()
    vc, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    bench.run(vc)
    cur = bench.vcore_module.cursor_of(vc, 0)
    bench.vcore_module.before_handler(vc, cur, 0, True)
    bench.send(sender, 1)
    bench.settle(other)
    assert other.args == [1]


def test_news_that_went_to_another_in_a_slow_handler_start_one_more(bench: Bench) -> None:
    """The wanted vcore sleeps; the one that got the indirection runs a slow handler."""
    bench.queue(vcore=0)
    bench.asleep(0)
    busy, third, sender = bench.vcore(1), bench.asleep(2), bench.actor()
    bench.run(busy)
    bench.vcore_module.before_handler(busy, bench.vcore_module.cursor_of(busy, 0), 0, True)
    bench.send(sender, 1)
    assert const.VC_STARTED in (bench.map(0), bench.map(2))
    assert third.args == []


def test_backlog_asks_for_one_more_core(bench: Bench) -> None:
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    bench.asleep(1)
    cur = bench.vcore_module.cursor_of(vc, 0)
    bench.send(sender, 1)
    bench.send(sender, 2)
    vc.during = lambda: bench.vcore_module.before_handler(vc, cur, 0, False)
    vc.streak = 62
    bench.vcore_module.look_at(vc, 0)
    bench.mbox.take(vc.s, cur)
    bench.vcore_module.before_handler(vc, cur, 0, False)
    assert bench.map(1) == const.VC_OFFLINE
    bench.vcore_module.before_handler(vc, cur, 0, False)
    assert bench.map(1) == const.VC_STARTED


# ---- the mail of others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ev_type", [const.EV_CHECK_MSGS, const.EV_VCORE_PREEMPT])
def test_told_of_another_vcore_it_looks_at_its_public_mail(bench: Bench, ev_type: int) -> None:
    vc, sender = bench.vcore(0), bench.actor()
    spam(bench, sender, 2, TYPE, 9)
    spam(bench, sender, 0, ev_type, 2)
    bench.run(vc)
    assert vc.args == [9]
    assert vc.others == []


@pytest.mark.parametrize("about", [0, 4, 2**63])
def test_told_of_itself_or_of_nobody_it_does_nothing(bench: Bench, about: int) -> None:
    vc = bench.vcore(0)
    msg = bench.message(ev_type=const.EV_CHECK_MSGS)
    msg.arg3 = about
    bench.event.spam_vcore(bench.actor(), 0, msg, 0)
    bench.idle(vc)
    assert vc.got == []


def test_mailboxes_of_mailboxes_do_not_recurse_and_are_not_forgotten(bench: Bench) -> None:
    vc, sender = bench.vcore(0), bench.actor()
    bench.run(vc)
    spam(bench, sender, 3, TYPE, 3)
    spam(bench, sender, 2, const.EV_CHECK_MSGS, 3)
    spam(bench, sender, 1, const.EV_CHECK_MSGS, 2)
    spam(bench, sender, 0, const.EV_CHECK_MSGS, 1)
    bench.run(vc)
    assert vc.args == [3]


def test_program_may_take_kernel_events_in_a_queue_of_its_own(bench: Bench) -> None:
    bench.queue(1)
    vc, sender = bench.vcore(0), bench.actor()
    assert bench.send(sender, 2, queue=1, ev_type=const.EV_VCORE_PREEMPT) == const.OK
    bench.run(vc)
    assert vc.got == [(const.EV_VCORE_PREEMPT, 2)]


def test_bulk_preempted_vcores_mail_is_its_own(bench: Bench) -> None:
    vc, other, sender = bench.vcore(0), bench.vcore(1), bench.actor()
    bench.run(other)
    spam(bench, sender, 1, TYPE, 3)
    bench.set_map(1, const.VC_BULK, other.s.me)
    bench.vcore_module.adopt_mail(vc)
    assert vc.others == []


# ---- yielding --------------------------------------------------------------------------------------------------------


def test_vcore_with_nothing_to_do_gives_its_core_back(bench: Bench) -> None:
    vc = bench.vcore(0)
    bench.run(vc)
    assert bench.vcore_module.vcore_yield(vc)
    assert bench.map(0) == const.VC_OFFLINE
    assert bench.vcpd(0, const.VCPD_FLAGS) & const.VC_CAN_RCV_MSG == 0


def test_yield_is_refused_with_mail_pending(bench: Bench) -> None:
    vc = bench.vcore(0)
    bench.run(vc)
    spam(bench, bench.actor(), 0, TYPE, 1)
    assert not bench.vcore_module.vcore_yield(vc)
    assert bench.vcpd(0, const.VCPD_FLAGS) & const.VC_CAN_RCV_MSG
    bench.run(vc)
    assert vc.args == [1]


@pytest.mark.parametrize("flags", [USUAL, USUAL | const.EVENT_NOMSG])
def test_yield_is_refused_with_news_in_a_queue_it_answers_for(bench: Bench, flags: int) -> None:
    bench.queue(flags=flags)
    vc, sender = bench.vcore(0), bench.actor()
    bench.send(sender)
    bench.run(vc)
    bench.send(sender)
    assert not bench.pending(0)
    assert not bench.vcore_module.vcore_yield(vc)
    bench.run(vc)
    assert len(vc.got) + len(vc.bits) == 2


def test_yield_clears_dead_claims_away(bench: Bench) -> None:
    bench.queue()
    vc, sender, dead = bench.vcore(0), bench.actor(), bench.actor()
    bench.ucq.claim_slot(dead, bench.event.queue_mbox(sender, 0))
    bench.send(sender, 1)
    bench.run(vc)
    bench.kill(dead)
    bench.idle(vc)
    assert not bench.mbox.waiting_in(sender, bench.event.queue_mbox(sender, 0), 0)


@pytest.mark.parametrize("box", ["get_vcpd_mbox_pub", "get_vcpd_mbox_priv"])
def test_yield_clears_dead_claims_in_its_own_mail_away(bench: Bench, box: str) -> None:
    vc = bench.asleep(0)
    sender = bench.actor()
    mbox = getattr(bench.event, box)(sender, 0)
    assert bench.ucq.claim_slot(sender, mbox)
    bench.kill(sender)
    assert bench.mbox.waiting_in(bench.at, mbox, 0)
    bench.proc.startcore(bench.actor(), 0)  # as a drain does
    bench.settle(vc)
    assert not bench.mbox.waiting_in(bench.at, mbox, 0)


def test_yield_tells_those_who_wait_for_a_drain(bench: Bench) -> None:
    vc = bench.vcore(0)
    bench.set(bench.at.procinfo + const.PI_DRAINERS, 1, 4)
    bench.idle(vc)
    assert bench.get(bench.at.procinfo + const.PI_DRAIN_SEQ, 4) == 1


def test_woken_vcore_works_and_sleeps_again(bench: Bench) -> None:
    bench.queue()
    vc, sender = bench.asleep(0), bench.actor()
    for i in range(4):
        bench.send(sender, i)
        assert bench.map(0) == const.VC_STARTED
        bench.settle(vc)
    assert vc.args == [0, 1, 2, 3]
    assert bench.state() == const.P_WAITING


# ---- vcore context and user code -------------------------------------------------------------------------------------


def test_notifications_are_off_in_vcore_context(bench: Bench) -> None:
    vc = bench.vcore(0)
    bench.run(vc)
    assert bench.vcore_module.enable_notifs(vc)
    assert bench.vcpd(0, const.VCPD_NOTIF_DISABLED) == 0
    assert not vc.in_vcore_context
    bench.vcore_module.disable_notifs(vc)
    assert bench.vcpd(0, const.VCPD_NOTIF_DISABLED) == 1
    assert vc.in_vcore_context


def test_notifications_stay_off_if_something_is_pending(bench: Bench) -> None:
    vc = bench.vcore(0)
    assert bench.pending(0)
    assert not bench.vcore_module.enable_notifs(vc)
    assert bench.vcpd(0, const.VCPD_NOTIF_DISABLED) == 1
    assert vc.in_vcore_context


def test_user_code_answers_for_nothing(bench: Bench) -> None:
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    bench.send(sender, 1)
    bench.run(vc)
    assert bench.vcore_module.leave_vcore_context(vc)
    assert bench.alert() == const.ALERT_NONE


@pytest.mark.parametrize("flags", [USUAL, USUAL | const.EVENT_NOMSG])
def test_user_code_waits_for_news_in_a_queue_it_answered_for(bench: Bench, flags: int) -> None:
    """The sender saw POLLED and told nobody: the vcore must see it before it runs user code."""
    bench.queue(flags=flags)
    vc, sender = bench.vcore(0), bench.actor()
    bench.send(sender)
    bench.run(vc)
    bench.send(sender)
    assert not bench.vcore_module.leave_vcore_context(vc)
    assert vc.in_vcore_context


def test_event_in_user_code_is_an_interrupt(lives: Any) -> None:
    bench = Bench(lives("interpreted"))
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    bench.run(vc)
    bench.vcore_module.leave_vcore_context(vc)
    bench.send(sender, 1)
    assert bench.world.interrupted == [0]
    bench.vcore_module.disable_notifs(vc)
    bench.run(vc)
    assert vc.args == [1]


# ---- spinning --------------------------------------------------------------------------------------------------------


def spin(bench: Bench, vc: Any) -> bool:
    watches = bench.spin_module.Watches()
    n = bench.spin_module.watch(vc, watches)
    return n == const.NO_VCORE or bool(bench.spin_module.spin(vc.s, 0, watches, n, 0))


def test_spinning_ends_when_nothing_comes(bench: Bench) -> None:
    bench.queue()
    vc, sender = bench.vcore(0), bench.actor()
    bench.send(sender, 1)
    bench.run(vc)
    assert not spin(bench, vc)


@pytest.mark.parametrize("flags", [USUAL, USUAL | const.EVENT_NOMSG])
def test_spinning_sees_what_nobody_is_told_of(bench: Bench, flags: int) -> None:
    bench.queue(flags=flags)
    vc, sender = bench.vcore(0), bench.actor()
    bench.send(sender)
    bench.run(vc)
    watches = bench.spin_module.Watches()
    n = bench.spin_module.watch(vc, watches)
    bench.send(sender)
    assert not bench.pending(0)
    assert bench.spin_module.spin(vc.s, 0, watches, n, 0)


def test_spinning_sees_pending(bench: Bench) -> None:
    vc = bench.vcore(0)
    bench.run(vc)
    assert not spin(bench, vc)
    spam(bench, bench.actor(), 0, TYPE)
    assert spin(bench, vc)


def test_more_queues_than_watches_are_all_looked_at_before_sleep(life: Any) -> None:
    bench = Bench(life, geometry=(2, 30, 64, 8, 4, 64, 1), vcores=2)
    for queue in range(30):
        bench.queue(queue)
    vc, sender = bench.vcore(0), bench.actor()
    for queue in range(30):
        bench.send(sender, queue, queue=queue)
    bench.run(vc)
    assert not spin(bench, vc)
    for queue in range(30):
        bench.send(sender, 100 + queue, queue=queue)
    bench.idle(vc)
    assert sorted(vc.args) == [*range(30), *range(100, 130)]


# ---- deaths ----------------------------------------------------------------------------------------------------------


def test_event_in_a_dead_vcores_hand_goes_to_another(bench: Bench) -> None:
    bench.queue()
    dead, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    bench.send(sender, 1)

    def die() -> None:
        raise KeyboardInterrupt

    dead.during = die
    with pytest.raises(KeyboardInterrupt):
        bench.run(dead)
    bench.bury(dead.s, by=sender, vcoreid=0)
    bench.settle(other)
    assert other.args == [1]


def test_dead_vcores_promise_does_not_outlive_it(bench: Bench) -> None:
    """It answered for the queue and died; events sent meanwhile told nobody."""
    bench.queue()
    dead, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    bench.send(sender, 1)
    bench.run(dead)
    bench.kill(dead.s)
    bench.send(sender, 2)
    bench.bury(dead.s, by=sender, vcoreid=0)
    bench.settle(other)
    assert other.args == [2]
    bench.send(sender, 3)
    bench.settle(other)
    assert other.args == [2, 3]


def test_promise_of_a_host_before_the_last_one_is_taken_back(bench: Bench) -> None:
    """The vcore has been hosted again before anyone settled its first host's death, and its new host died too."""
    bench.queue()
    first, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    bench.send(sender, 1)
    bench.run(first)
    bench.kill(first.s)
    second = bench.vcore(0)
    bench.bury(second.s, by=sender, vcoreid=0)
    bench.send(sender, 2)
    bench.settle(other)
    assert other.args == [2]


def test_dead_vcores_public_mail_goes_to_another(bench: Bench) -> None:
    dead, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    bench.run(dead)
    spam(bench, sender, 0, TYPE, 1)
    bench.bury(dead.s, by=sender, vcoreid=0)
    bench.settle(other)
    assert other.args == [1]


def test_news_between_vcores_is_no_event_that_waits(bench: Bench) -> None:
    """A vcore that had left already was told of an event that another then handled: the segment of a process that had
    handled everything stayed behind its stop."""
    bench.queue()
    sender = bench.actor()
    mbox = bench.event.get_vcpd_mbox_pub(bench.at, 2)
    assert not bench.recover_module.mail_waits(sender, mbox)
    for kind in (const.EV_EVENT, const.EV_CHECK_MSGS, const.EV_VCORE_PREEMPT) * 2:  # more than a page
        assert bench.event.post_ev_msg(sender, mbox, bench.message(1, ev_type=kind), 0) == const.OK
    for kind in (const.EV_EVENT, const.EV_CHECK_MSGS):
        assert bench.event.post_ev_msg(sender, mbox, bench.message(ev_type=kind), const.EVENT_NOMSG) == const.OK
    assert bench.mbox.waiting_in(sender, mbox, 0)
    assert not bench.recover_module.mail_waits(sender, mbox)


@pytest.mark.parametrize("what", ["message", "kernel event", "bit", "claim"])
def test_an_event_among_news_waits(bench: Bench, what: str) -> None:
    sender = bench.actor()
    mbox = bench.event.get_vcpd_mbox_priv(bench.at, 2)
    for _ in range(6):
        assert bench.event.post_ev_msg(sender, mbox, bench.message(ev_type=const.EV_EVENT), 0) == const.OK
    if what == "claim":
        assert bench.ucq.claim_slot(sender, mbox)
    elif what == "bit":
        assert bench.event.post_ev_msg(sender, mbox, bench.message(), const.EVENT_NOMSG) == const.OK
    else:
        kind = TYPE if what == "message" else const.EV_VCORE_PREEMPT
        assert bench.event.post_ev_msg(sender, mbox, bench.message(ev_type=kind, queue=1), 0) == const.OK
    assert bench.recover_module.mail_waits(sender, mbox)


def test_mail_of_a_sleeper_in_a_dead_hand_wakes_the_sleeper(bench: Bench) -> None:
    """Another vcore looked at its mail while nobody hosted it, and died with a message of it; by now it sleeps."""
    dead, sender = bench.vcore(0), bench.actor()
    bench.run(dead)
    spam(bench, sender, 1, TYPE, 5)
    bench.vcore_module.adopt_mail(dead)

    def die() -> None:
        raise KeyboardInterrupt

    dead.during = die
    with pytest.raises(KeyboardInterrupt):
        bench.run(dead)
    owner = bench.asleep(1)
    bench.bury(dead.s, by=sender, vcoreid=0)
    bench.settle(owner)
    assert owner.args == [5]


def test_bit_in_a_dead_vcores_hand_is_delivered_again(bench: Bench) -> None:
    bench.queue(flags=USUAL | const.EVENT_NOMSG)
    dead, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    for ev_type in (40, 41, 42):
        bench.send(sender, ev_type=ev_type)
    held: list[bytes] = []

    def die() -> None:
        held.append(bytes(bench.buffer))  # what the memory is at the moment of the SIGKILL
        raise KeyboardInterrupt

    dead.during = die
    with pytest.raises(KeyboardInterrupt):
        bench.run(dead)
    bench.buffer[:] = held[0]
    bench.bury(dead.s, by=sender, vcoreid=0)
    bench.settle(other)
    assert sorted(other.bits) == [40, 41, 42]


def test_bit_in_a_dead_hand_is_there_for_the_next_host(bench: Bench) -> None:
    """Nobody has settled the death when the vcore is hosted again."""
    bench.queue(flags=USUAL | const.EVENT_NOMSG)
    dead, sender = bench.vcore(0), bench.actor()
    bench.send(sender, ev_type=40)
    held: list[bytes] = []

    def die() -> None:
        held.append(bytes(bench.buffer))
        raise KeyboardInterrupt

    dead.during = die
    with pytest.raises(KeyboardInterrupt):
        bench.run(dead)
    bench.buffer[:] = held[0]
    bench.kill(dead.s)
    vc = bench.vcore(0)
    bench.run(vc)
    assert vc.bits == [40]


def test_queue_that_a_dead_host_answered_for_is_answered_for_by_the_next(bench: Bench) -> None:
    """Nobody has settled the death when the vcore is hosted again: its name on the queue told senders that somebody looks,
    and the next host that somebody else does."""
    bench.queue()
    dead, sender = bench.vcore(0), bench.actor()
    bench.send(sender, 1)
    bench.run(dead)
    bench.kill(dead.s)
    vc = bench.asleep(0)
    bench.send(sender, 2)
    bench.settle(vc)
    assert vc.args == [2]


def test_bit_in_the_next_hosts_hand_is_left_alone_by_a_late_recovery(bench: Bench) -> None:
    """Its note was taken away, and its death took the bit with it."""
    bench.queue(flags=USUAL | const.EVENT_NOMSG)
    former, sender = bench.vcore(0), bench.actor()
    bench.kill(former.s)
    vc = bench.vcore(0)
    bench.send(sender, ev_type=40)
    at = bench.layout.vcpd_at(bench.at, 0) + const.VCPD_BIT

    def settled_late() -> None:
        bench.recover_module.recover_vcore(sender, 0, former.s.me)
        assert bench.get(at) == bench.recover_module.bit_in_hand(vc.s.me, bench.event.queue_mbox(bench.at, 0), 40)

    vc.during = settled_late
    bench.run(vc)
    assert vc.bits == [40]


def test_living_hosts_things_are_left_alone_by_a_recovery(bench: Bench) -> None:
    bench.queue()
    vc, other, sender = bench.vcore(0), bench.vcore(1), bench.actor()
    bench.send(sender, 1)
    bench.run(vc)
    bench.vcore_module.handle_vc_preempt(other, 1)
    assert bench.alert() == const.ALERT_POLLED | (vc.s.me << 32)
    assert bench.recover_module.recover_vcore(sender, 3, 0) == 0
    assert bench.alert() == const.ALERT_POLLED | (vc.s.me << 32)


def test_preempted_vcores_promises_are_taken_back(bench: Bench) -> None:
    bench.queue()
    stopped, other, sender = bench.vcore(0), bench.vcore(1), bench.actor()
    bench.run(other)
    bench.send(sender, 1)
    bench.run(stopped)
    bench.send(sender, 2)
    bench.proc.proc_preempt_core(sender, 0)
    bench.vcore_module.handle_vc_preempt(other, 0)
    bench.run(other)
    assert other.args == [2]
    assert not bench.event.can_msg_vcore(sender, 0)


def test_leaving_vcore_gives_up_its_promises(bench: Bench) -> None:
    bench.queue()
    vc, other, sender = bench.vcore(0), bench.asleep(1), bench.actor()
    bench.send(sender, 1)
    bench.run(vc)
    bench.send(sender, 2)
    bench.vcore_module.vcore_leave(vc)
    bench.proc.unhost_vcore(vc.s, 0)
    bench.recover_module.announce(sender)
    bench.settle(other)
    assert other.args == [2]


# ---- every meeting, every death --------------------------------------------------------------------------------------


def asleep_with(bench: Bench, queue_flags: int) -> tuple[Any, Any]:
    bench.queue(flags=queue_flags)
    return bench.vcore(0), bench.actor()


def delivered(vc: Any, flags: int) -> bool:
    return bool(vc.bits) if flags & const.EVENT_NOMSG else 1 in vc.args


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("flags", [USUAL, USUAL | const.EVENT_NOMSG, USUAL | const.EVENT_NOTHROTTLE])
@pytest.mark.parametrize("warm", [False, True])
def test_going_to_sleep_against_a_send_at_any_access(step_life: StepLife, flags: int, own: bool, warm: bool) -> None:
    """G2: the sender comes between any two accesses of a vcore that works, yields and sleeps."""
    for n in range(2000):
        bench = Bench(step_life)
        bench.queue(flags=flags, own=own)
        vc, sender = bench.vcore(0), bench.actor()
        if warm:
            bench.send(sender, 0)
            bench.run(vc)
        vc.bits.clear()
        more = step_life.interrupted(
            n, lambda bench=bench, vc=vc: bench.idle(vc), lambda bench=bench, sender=sender: bench.send(sender, 1)
        )
        bench.settle(vc)
        if not more:
            break
        assert delivered(vc, flags), f"at access {n}"
        assert bench.map(0) == const.VC_OFFLINE
    assert n > 10


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("flags", [USUAL, USUAL | const.EVENT_NOMSG, USUAL | const.EVENT_NOTHROTTLE])
@pytest.mark.parametrize("vcores", [1, 4])
def test_send_against_a_whole_life_at_any_access(step_life: StepLife, flags: int, own: bool, vcores: int) -> None:
    """G2: vcores wake, work and sleep again between any two accesses of a sender; then another event is sent."""
    for n in range(2000):
        bench = Bench(step_life, vcores=vcores)
        bench.queue(flags=flags, own=own)
        ours = [bench.asleep(v) for v in range(min(vcores, 2))]
        one, other = bench.actor(), bench.actor()

        def meanwhile(bench: Bench = bench, other: Any = other, ours: list[Any] = ours) -> None:
            bench.settle(*ours)
            bench.send(other, 2)
            bench.settle(*ours)

        more = step_life.interrupted(n, lambda bench=bench, one=one: bench.send(one, 1), meanwhile)
        bench.settle(*ours)
        bench.send(other, 3, ev_type=TYPE + 1)
        bench.settle(*ours)
        args = [arg for vc in ours for arg in vc.args]
        bits = {bit for vc in ours for bit in vc.bits}
        if flags & const.EVENT_NOMSG:
            assert bits == {TYPE, TYPE + 1}, f"at access {n}"
        else:
            assert sorted(args) == ([1, 2, 3] if more else [1, 3]), f"at access {n}"
        if not more:
            break
    assert n > 15


@pytest.mark.parametrize("flags", [USUAL, USUAL | const.EVENT_NOMSG])
def test_leaving_vcore_context_against_a_send_at_any_access(step_life: StepLife, flags: int) -> None:
    """Either the vcore stays in vcore context, or it is interrupted in user code."""
    for n in range(2000):
        bench = Bench(step_life)
        bench.queue(flags=flags)
        vc, sender = bench.vcore(0), bench.actor()
        bench.send(sender, 0)
        bench.run(vc)
        left: list[bool] = []
        more = step_life.interrupted(
            n,
            lambda bench=bench, vc=vc, left=left: left.append(bench.vcore_module.leave_vcore_context(vc)),
            lambda bench=bench, sender=sender: bench.send(sender, 1),
        )
        if not more:
            break
        assert not left[0] or bench.world.interrupted, f"at access {n}"
    assert n > 4


@pytest.mark.parametrize("flags", [USUAL, USUAL | const.EVENT_NOMSG])
def test_vcore_may_die_at_any_access(step_life: StepLife, flags: int) -> None:
    """G1, G4: whatever a vcore was doing when it died, what it was sent is delivered by the other, twice at most."""
    for n in range(3000):
        bench = Bench(step_life)
        bench.queue(flags=flags)
        sender = bench.actor()
        for i in range(3):
            bench.send(sender, i, ev_type=TYPE + i)
        seg = bench.actor()
        vc = bench.recorder(seg, 0)
        vc.bench = bench

        def live(bench: Bench = bench, seg: Any = seg, vc: Any = vc) -> None:
            bench.recover_module.host_vcore(seg, 0)
            bench.vcore_module.vcore_entry(vc)
            bench.idle(vc)

        other = bench.asleep(1) if n % 2 else None
        died = step_life.dies(n, live)
        if other is None:
            other = bench.asleep(1)
        bench.bury(seg, by=sender, vcoreid=0)
        bench.send(sender, 3, ev_type=TYPE + 3)
        bench.settle(other)
        got = sorted([*vc.bits, *other.bits] or [kind for kind, _ in vc.got + other.got])
        assert set(got) == {TYPE + i for i in range(4)}, f"dead before access {n}"
        assert len(got) <= 5, f"dead before access {n}"
        assert not bench.pages_lost()
        if not died and n % 2:
            break
    assert n > 40


def test_recovery_may_die_at_any_access(step_life: StepLife) -> None:
    """One death in the midst of settling another: the next watcher brings it to its end."""
    for n in range(5000):
        bench = Bench(step_life)
        bench.queue()
        dead, other, sender, watcher, second = (
            bench.vcore(0), bench.asleep(1), bench.actor(), bench.actor(), bench.actor(),
        )  # fmt: skip
        for i in range(3):
            bench.send(sender, i)

        def die() -> None:
            raise KeyboardInterrupt

        dead.during = die
        with pytest.raises(KeyboardInterrupt):
            bench.run(dead)
        died = step_life.dies(n, lambda bench=bench, w=watcher, d=dead: bench.bury(d.s, by=w, vcoreid=0))
        bench.settle(other)
        bench.kill(watcher)
        bench.bury(dead.s, by=second, vcoreid=0)
        bench.settle(other)
        assert sorted(other.args) == [0, 1, 2], f"dead before access {n}"
        if not died:
            break
    assert n > 100
