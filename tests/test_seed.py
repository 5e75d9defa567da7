"""The seed's functions, one by one: the decision of each, or ours in its place. docs/seed.md names these tests."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import TYPE, USUAL, Bench
from upcall.kern import const

ONLY_BIT = const.EVENT_IPI | const.EVENT_INDIR | const.EVENT_FALLBACK | const.EVENT_NOMSG
SPAM = const.EVENT_SPAM_PUBLIC | const.EVENT_IPI
FAR = (4, const.NO_VCORE, 2**32 - 1)


@pytest.fixture
def bench(life: Any) -> Bench:
    return Bench(life)


def own(bench: Bench, queue: int = 0) -> list[int]:
    """What waits in a queue's own mailbox."""
    return bench.waiting(bench.event.queue_mbox(bench.at, queue))


def mail(bench: Bench, vcoreid: int) -> list[int]:
    """What waits in a vcore's public mailbox."""
    return bench.waiting(2 * vcoreid)


def told(bench: Bench, vcoreid: int) -> int:
    """How many indirections wait in a vcore's public mailbox."""
    return bench.types_waiting(2 * vcoreid).count(const.EV_EVENT)


def set_alert(bench: Bench, state: int, name: int = 0) -> None:
    bench.set(bench.layout.evq_at(bench.at, 0) + const.EVQ_ALERT, state | name << 32)


# ---- mailboxes and posting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vcoreid", FAR)
def test_unsafe_vcoreid_sends_nothing(bench: Bench, vcoreid: int) -> None:
    bench.queue(vcore=vcoreid)
    assert bench.send(bench.actor()) == const.BAD_VCORE
    assert own(bench) == []


def test_each_vcore_has_a_public_and_a_private_mailbox_of_its_own(bench: Bench) -> None:
    numbers = [bench.event.get_vcpd_mbox(bench.at, v, f) for v in range(4) for f in (0, const.EVENT_VCORE_PRIVATE)]
    assert numbers == list(range(8))
    assert numbers[::2] == [bench.event.get_vcpd_mbox_pub(bench.at, v) for v in range(4)]
    assert numbers[1::2] == [bench.event.get_vcpd_mbox_priv(bench.at, v) for v in range(4)]
    assert bench.event.queue_mbox(bench.at, 0) == 8


def test_nomsg_posts_a_bit_and_no_message(bench: Bench) -> None:
    at = bench.layout.mbox_at(bench.at, 0)
    for _ in range(2):
        assert bench.event.post_ev_msg(bench.actor(), 0, bench.message(ev_type=40), const.EVENT_NOMSG) == const.OK
    assert bench.get(at + const.MB_BITMAP) == 1 << 40
    assert bench.get(at + const.MB_CHECK_BITS, 4) == 1
    assert bench.waiting(0) == []


def test_mailbox_outside_the_segment_is_refused(bench: Bench) -> None:
    assert bench.event.post_ev_msg(bench.actor(), bench.at.nr_mboxes, bench.message(), 0) == const.BAD_MAILBOX
    bench.queue()
    bench.set(bench.layout.evq_at(bench.at, 0) + const.EVQ_MBOX, bench.at.nr_mboxes + 1, 4)
    assert bench.send(bench.actor()) == const.BAD_MAILBOX


def test_type_outside_the_bitmap_is_no_bit(bench: Bench) -> None:
    bench.queue(flags=ONLY_BIT)
    assert bench.send(bench.actor(), ev_type=64) == const.BAD_TYPE


def test_post_to_a_vcore_sets_pending_ipi_or_not(bench: Bench) -> None:
    assert bench.event.post_vc_msg(bench.actor(), 1, 2, bench.message(7), 0) == const.OK
    assert (bench.pending(1), mail(bench, 1)) == (True, [7])


def test_post_without_room_sets_nothing(bench: Bench) -> None:
    bench.set(bench.layout.mbox_at(bench.at, 2) + const.MB_LIMIT, 1)
    sender = bench.actor()
    bench.event.post_ev_msg(sender, 2, bench.message(), 0)
    assert bench.event.post_vc_msg(sender, 1, 2, bench.message(), 0) == const.FULL
    assert not bench.pending(1)


@pytest.mark.parametrize(("flags", "state", "calls"), [
    (const.EVENT_IPI, const.VC_ONLINE, [1]), (0, const.VC_ONLINE, []), (const.EVENT_IPI, const.VC_OFFLINE, []),
])  # fmt: skip
def test_notify_needs_the_flag_and_a_mapped_vcore(lives: Any, flags: int, state: int, calls: list[int]) -> None:
    bench = Bench(lives("interpreted"))
    bench.set_map(1, state)
    bench.event.try_notify(bench.actor(), 1, flags)
    assert bench.world.interrupted == calls


# ---- spamming --------------------------------------------------------------------------------------------------------


def test_spam_goes_to_the_public_mailbox(bench: Bench) -> None:
    assert bench.event.spam_vcore(bench.actor(), 2, bench.message(5), const.EVENT_VCORE_PRIVATE) == const.OK
    assert (mail(bench, 2), bench.waiting(5), bench.pending(2)) == ([5], [], True)


def test_indirection_without_room_becomes_a_bit(bench: Bench) -> None:
    bench.set(bench.layout.mbox_at(bench.at, 0) + const.MB_LIMIT, 1)
    sender = bench.actor()
    bench.event.spam_vcore(sender, 0, bench.message(), 0)
    assert bench.event.spam_vcore(sender, 0, bench.message(), 0) == const.FULL
    assert bench.event.spam_vcore(sender, 0, bench.message(ev_type=const.EV_EVENT), 0) == const.OK
    assert bench.get(bench.layout.mbox_at(bench.at, 0) + const.MB_BITMAP) == 1 << const.EV_EVENT


def test_vcore_that_does_not_look_is_not_spammed(bench: Bench) -> None:
    bench.asleep(0)
    assert not bench.event.try_spam_vcore(bench.actor(), 0, bench.message(), 0)
    assert mail(bench, 0) == []


def test_vcore_that_runs_is_spammed(bench: Bench) -> None:
    bench.vcore(0)
    assert bench.event.try_spam_vcore(bench.actor(), 0, bench.message(3), 0)
    assert mail(bench, 0) == [3]


def test_flag_of_a_sleeper_is_not_relied_on(bench: Bench) -> None:
    """A sender that gave the vcore its core may set VC_CAN_RCV_MSG when the vcore has worked and sleeps again."""
    bench.asleep(0)
    sender = bench.actor()
    bench.event.set_vcore_msgable(sender, 0)
    assert bench.event.can_msg_vcore(sender, 0)
    assert not bench.event.try_spam_vcore(sender, 0, bench.message(), 0)


def test_head_of_a_list_is_spammed(bench: Bench) -> None:
    bench.asleep(0)
    bench.vcore(1)
    bench.vcore(2)
    assert bench.event.spam_list_member(bench.actor(), const.VC_ONLINE, bench.message(4), 0)
    assert [mail(bench, v) for v in range(3)] == [[], [4], []]


def test_empty_list_is_a_failure_that_writes_nothing(bench: Bench) -> None:
    bench.asleep(0)
    assert not bench.event.spam_list_member(bench.actor(), const.VC_ONLINE, bench.message(), 0)
    assert [mail(bench, v) for v in range(4)] == [[], [], [], []]


def test_bulk_preempted_head_gets_its_own_core(bench: Bench) -> None:
    bench.vcore(1)
    bench.vcore(2)
    bench.proc.proc_preempt_all(bench.actor())
    assert bench.event.spam_list_member(bench.actor(), const.VC_BULK, bench.message(6), 0)
    assert (mail(bench, 1), bench.map(1), bench.map(2)) == ([6], const.VC_STARTED, const.VC_BULK)


def test_list_is_chased_ten_times_and_then_given_up(lives: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(lives("interpreted"))
    bench.vcore(0)
    looks: list[int] = []
    monkeypatch.setattr(bench.event, "vcore_will_look", lambda _, v: looks.append(v))
    assert not bench.event.spam_list_member(bench.actor(), const.VC_ONLINE, bench.message(), 0)
    assert len(looks) == const.LIST_TRIES_MAX + 1


def test_must_run_passes_over_the_wanted_vcore(bench: Bench) -> None:
    bench.asleep(0)
    bench.vcore(1)
    sender = bench.actor()
    bench.event.set_vcore_msgable(sender, 0)
    bench.event.spam_public_msg(sender, bench.message(8), 0, const.EVENT_VCORE_MUST_RUN)
    assert (mail(bench, 0), mail(bench, 1)) == ([], [8])


def test_wanted_vcore_is_tried_first(bench: Bench) -> None:
    bench.vcore(0)
    bench.vcore(2)
    bench.event.spam_public_msg(bench.actor(), bench.message(8), 2, 0)
    assert (mail(bench, 0), mail(bench, 2)) == ([], [8])


def test_online_comes_before_bulk_preempted_before_inactive(bench: Bench) -> None:
    sender = bench.actor()
    bench.asleep(0)
    bench.vcore(1)
    bench.proc.proc_preempt_all(sender)
    bench.vcore(2)
    bench.event.spam_public_msg(sender, bench.message(1), 3, 0)
    assert [mail(bench, v) for v in range(3)] == [[], [], [1]]
    bench.set_map(2, const.VC_OFFLINE)
    bench.event.spam_public_msg(sender, bench.message(2), 3, 0)
    assert [mail(bench, v) for v in range(3)] == [[], [2], [1]]
    bench.set_map(1, const.VC_OFFLINE)
    bench.event.spam_public_msg(sender, bench.message(3), 3, 0)
    assert (mail(bench, 0), bench.map(0)) == ([3], const.VC_STARTED)


def test_inactive_head_that_is_messageable_gets_a_core_all_the_same(bench: Bench) -> None:
    bench.asleep(0)
    sender = bench.actor()
    bench.event.set_vcore_msgable(sender, 0)
    bench.event.spam_public_msg(sender, bench.message(1), 3, 0)
    assert (mail(bench, 0)[-1], bench.map(0)) == (1, const.VC_STARTED)


def test_last_resort_waits_for_no_lock(bench: Bench) -> None:
    """The lock is held by somebody alive, who may be stopped for ever: the event wakes the process all the same."""
    bench.queue()
    vc = bench.asleep(0)
    assert bench.proc.proc_lock(bench.actor())
    assert bench.send(bench.actor(), 9) == const.OK
    bench.settle(vc)
    assert vc.args == [9]


def test_last_resort_without_a_host_leaves_the_message_for_the_first(bench: Bench) -> None:
    bench.queue(vcore=3)
    assert bench.send(bench.actor(), 9) == const.OK
    assert told(bench, 3) == 1
    vc = bench.vcore(1)
    bench.run(vc)
    assert vc.args == [9]


def test_vcore_chosen_last_can_be_messaged_at_once(bench: Bench) -> None:
    bench.queue()
    bench.asleep(0)
    sender = bench.actor()
    bench.send(sender, 1)
    assert bench.event.can_msg_vcore(sender, 0)
    assert bench.event.try_spam_vcore(sender, 0, bench.message(2), 0)


# ---- indirections ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "sent"), [
    (const.ALERT_NONE, 1), (const.ALERT_DOING, 1), (const.ALERT_DONE, 0), (const.ALERT_POLLED, 0),
])  # fmt: skip
def test_only_what_is_done_throttles(bench: Bench, state: int, sent: int) -> None:
    bench.queue()
    bench.vcore(0)
    set_alert(bench, state, bench.actor().me)
    bench.event.send_indir(bench.actor(), 0, 0)
    assert told(bench, 0) == sent


def test_indirection_that_is_out_says_done(bench: Bench) -> None:
    bench.queue()
    bench.vcore(0)
    bench.event.send_indir(bench.actor(), 0, 0)
    assert bench.alert() == const.ALERT_DONE


def test_nothrottle_tells_every_time(bench: Bench) -> None:
    bench.queue(flags=USUAL | const.EVENT_NOTHROTTLE)
    bench.vcore(0)
    for _ in range(3):
        bench.event.send_indir(bench.actor(), 0, 0)
    assert told(bench, 0) == 3


def test_answer_in_the_middle_of_an_indirection_stands(step_life: Any) -> None:
    """The vcore looks, and sleeps again, while the sender is still at it: a late DONE would throttle for ever."""
    n = 0
    while True:
        bench = Bench(step_life)
        bench.queue()
        vc, sender = bench.vcore(0), bench.actor()

        def answer(bench: Bench = bench, vc: Any = vc) -> None:
            bench.settle(vc)

        if not step_life.interrupted(n, lambda b=bench, s=sender: b.send(s, 1), answer):
            break
        bench.settle(vc)
        bench.send(sender, 2)
        bench.settle(vc)
        assert vc.args == [1, 2]
        n += 1
    assert n > 20


# ---- sending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", [1, 4, 2**32, 2**64 - 1])
def test_queue_that_is_not_there_is_refused(bench: Bench, queue: int) -> None:
    bench.queue(0)
    assert bench.send(bench.actor(), queue=queue) == const.BAD_QUEUE


def test_dying_process_takes_nothing(bench: Bench) -> None:
    bench.queue()
    bench.set(bench.at.procinfo + const.PI_STATE, const.P_DYING)
    assert bench.send(bench.actor()) == const.GONE
    assert bench.event.post_vcore_event(bench.actor(), bench.message(), 0, 0) == const.GONE
    assert (own(bench), mail(bench, 0)) == ([], [])


def test_process_that_dies_meanwhile_takes_nothing(step_life: Any) -> None:
    """Somebody removes the process in the middle of a send: OK means that he has seen the message waiting."""
    n = 0
    while True:
        bench = Bench(step_life)
        bench.queue()
        sender = bench.actor()
        seen: list[list[int]] = []

        def remove(bench: Bench = bench, seen: list[list[int]] = seen) -> None:
            bench.set(bench.at.procinfo + const.PI_STATE, const.P_DYING)
            seen.append(own(bench))

        status: list[int] = []
        if not step_life.interrupted(n, lambda b=bench, s=sender, st=status: st.append(b.send(s, 1)), remove):
            break
        assert status == [const.GONE] or seen == [[1]]
        n += 1
    assert n > 20


def test_queues_vcore_is_preferred_and_a_proposal_counts_with_appro_only(bench: Bench) -> None:
    bench.queue(0, vcore=1)
    bench.queue(1, flags=USUAL | const.EVENT_VCORE_APPRO, vcore=1)
    for v in range(4):
        bench.vcore(v)
    sender = bench.actor()
    bench.send(sender, queue=0, vcore=2)
    bench.send(sender, queue=1, vcore=2)
    assert [told(bench, v) for v in range(4)] == [0, 1, 1, 0]
    assert bench.send(sender, queue=1, vcore=4) == const.BAD_VCORE


def test_roundrobin_takes_the_next_and_overrides_appro(bench: Bench) -> None:
    bench.queue(flags=USUAL | const.EVENT_ROUNDROBIN | const.EVENT_VCORE_APPRO | const.EVENT_NOTHROTTLE)
    for v in range(4):
        bench.vcore(v)
    sender = bench.actor()
    for _ in range(5):
        bench.send(sender, vcore=3)
    assert [told(bench, v) for v in range(4)] == [1, 2, 1, 1]
    assert bench.get(bench.layout.evq_at(bench.at, 0) + const.EVQ_VCORE, 4) == 1


def test_roundrobin_with_no_vcore_goes_to_the_first_to_come(life: Any) -> None:
    bench = Bench(life, vcores=0)
    bench.queue(flags=USUAL | const.EVENT_ROUNDROBIN)
    assert bench.send(bench.actor(), 7) == const.OK
    assert (own(bench), told(bench, 0)) == ([7], 1)


@pytest.mark.parametrize("flags", [USUAL, const.EVENT_IPI, 0])
def test_single_core_process_keeps_the_queues_mailbox_and_is_woken(life: Any, flags: int) -> None:
    bench = Bench(life, vcores=1)
    bench.queue(flags=flags, limit=2)
    vc, sender = bench.asleep(0), bench.actor()
    assert bench.state() == const.P_WAITING
    assert [bench.send(sender, i) for i in range(3)] == [const.OK, const.OK, const.FULL]
    assert own(bench) == [0, 1]
    bench.settle(vc)
    assert vc.args == [0, 1]


@pytest.mark.parametrize("flags", [const.EVENT_IPI, const.EVENT_VCORE_PRIVATE])
def test_mail_of_a_sleeper_gives_it_a_core(bench: Bench, flags: int) -> None:
    bench.queue(flags=flags, own=False, vcore=1)
    bench.asleep(0)
    vc = bench.asleep(1)
    assert bench.send(bench.actor(), 3) == const.OK
    bench.settle(vc)
    assert vc.args == [3]


def test_spammed_message_keeps_ipi_must_run_and_nomsg(bench: Bench) -> None:
    bench.queue(flags=SPAM | const.EVENT_NOMSG, own=False)
    bench.vcore(0)
    bench.send(bench.actor(), ev_type=40)
    assert mail(bench, 0) == []
    assert bench.get(bench.layout.mbox_at(bench.at, 0) + const.MB_BITMAP) == 1 << 40


def test_spammed_message_says_its_queue(bench: Bench) -> None:
    bench.queue(2, flags=SPAM, own=False)
    bench.vcore(0)
    bench.send(bench.actor(), 5, queue=2)
    (where,) = bench.walk(0)
    assert bench.get(bench.ucq.slot_at(bench.at, where) + const.SL_QUEUE, 2) == 3


# ---- one-sided events ------------------------------------------------------------------------------------------------


def register(bench: Bench, ev_type: int, queue: int) -> None:
    bench.set(bench.layout.kernel_evt_at(bench.at, ev_type), queue + 1, 4)


def test_kernel_event_goes_to_the_registered_queue(bench: Bench) -> None:
    bench.queue(1)
    register(bench, const.EV_ALARM, 1)
    assert (
        bench.event.send_kernel_event(bench.actor(), bench.message(5, ev_type=const.EV_ALARM), const.NO_VCORE)
        == const.OK
    )
    assert own(bench, 1) == [5]


@pytest.mark.parametrize(("ev_type", "status"), [
    (const.EV_ALARM, const.BAD_QUEUE), (const.MAX_NR_EVENT, const.BAD_TYPE), (0xFFFF, const.BAD_TYPE),
])  # fmt: skip
def test_kernel_event_that_nobody_registered_for_is_dropped(bench: Bench, ev_type: int, status: int) -> None:
    bench.queue()
    assert bench.event.send_kernel_event(bench.actor(), bench.message(ev_type=ev_type), const.NO_VCORE) == status
    assert own(bench) == []


def test_posix_signal_is_a_kernel_event_with_the_number(bench: Bench) -> None:
    bench.queue()
    msg = bench.layout.Msg()
    assert bench.event.send_posix_signal(bench.actor(), msg, 10) == const.BAD_QUEUE
    register(bench, const.EV_POSIX_SIGNAL, 0)
    assert bench.event.send_posix_signal(bench.actor(), msg, 10) == const.OK
    assert own(bench) == [10]
    assert bench.types_waiting(bench.event.queue_mbox(bench.at, 0)) == [const.EV_POSIX_SIGNAL]


@pytest.mark.parametrize("flags", [0, const.EVENT_VCORE_PRIVATE])
def test_event_for_a_vcore_wakes_it(bench: Bench, flags: int) -> None:
    bench.asleep(0)
    vc = bench.asleep(2)
    assert bench.event.post_vcore_event(bench.actor(), bench.message(4), 2, flags) == const.OK
    bench.settle(vc)
    assert vc.got == [(TYPE, 4)]


def test_event_for_a_vcore_that_the_process_has_not_is_refused(life: Any) -> None:
    bench = Bench(life, vcores=2)
    sender = bench.actor()
    for vcoreid in (2, 3, *FAR):
        assert bench.event.post_vcore_event(sender, bench.message(), vcoreid, 0) == const.BAD_VCORE
    assert [mail(bench, v) for v in range(4)] == [[], [], [], []]
