"""A vcore at work: handling events, looking at queues, yielding, and coming back.

One vcore is one host (the main thread of a worker process, or a thread). In vcore context notifications are off and it
runs, over and over: `handle_events` if `notif_pending`, then the queues that it has been told of, until nothing is left;
then it looks a short while longer, and yields.

`alert_pending` of a queue, as a vcore sees it: an indirection says "look at this queue"; the vcore answers by writing
POLLED with its name and looks, and goes on looking whenever it has nothing else to do, so senders need not tell it again.
Before it stops looking (to sleep, to run user code, or to run a handler that may take long) it takes POLLED back, fences,
and looks once more. That is the seed's "clear alert_pending, fence, look", with the look made to last.

Handlers that take long: a vcore that has seen handlers of a queue run longer than LONG_NS says so (VC_LONG_HANDLER) and
takes POLLED back before each; who sends then sends an indirection, sees the flag, and asks for one more core. A vcore that
takes a message and sees more behind it asks by itself. So a backlog spreads over the vcores within a few wake-ups, and one
event wakes one vcore.
"Look again" information is written before a handler runs, never after: a handler may not return.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..kern.const import (
        ALERT_NONE,
        ALERT_POLLED,
        EV_CHECK_MSGS,
        EV_EVENT,
        EV_NONE,
        EV_VCORE_PREEMPT,
        EVENT_NOMSG,
        EVQ_ALERT,
        EVQ_MBOX,
        MB_BITMAP,
        MB_BITMAP_WORDS,
        MB_CHECK_BITS,
        PI_POOL_WAITERS,
        PI_STOP,
        SL_ARG3,
        SL_QUEUE,
        SL_TYPE,
        STOP_NOW,
        VC_AWAY,
        VC_BULK,
        VC_CAN_RCV_MSG,
        VC_LONG_HANDLER,
        VC_NOHOST,
        VC_PREEMPTED,
        VC_PREEMPTED_FLAG,
        VCPD_BIT,
        VCPD_FLAGS,
        VCPD_HOST,
        VCPD_NOTIF_DISABLED,
        VCPD_NOTIF_PENDING,
        WALK_MAX,
    )
    from ..kern.event import get_vcpd_mbox_priv, get_vcpd_mbox_pub
    from ..kern.layout import evq_at, map_at, mbox_at, vcpd_at
    from ..kern.proc import is_running, proc_yield, start_one_more, vc_state, vcore_online
    from ..kern.ucq import tidy_mbox
    from ..machine.door import (
        cas64,
        ctz64,
        fand32,
        fand64,
        for32,
        ld16,
        ld32,
        ld64,
        lda64,
        mb,
        st32,
        st64,
        str32,
        u64,
    )
    from .full import has_looker, is_told, pass_on
    from .mbox import Cursor, more_waiting, news, put_done, reap_skipped, take, tell_drainers
    from .recover import announce, bit_in_hand, has_public_mail, is_hosted, num_queues, recover_vcore


class VCore:
    """One vcore's private side. A subclass gives `deliver`, which runs a handler, `deliver_bit`, and `sleep`. `threads`: the
    queues whose handlers run in uthread context, which `work` leaves to the host. `tasks`: those whose handlers go on as
    tasks of a loop; it takes nothing from them while `full` (`poll`). `enough`, by `deliver`: no more from this mailbox
    in this round. `bit_task`: a task has the bit in hand, and this vcore takes no other."""

    def __init__(self, s, vcoreid):
        self.s = s
        self.vcoreid = vcoreid
        s.vcoreid = vcoreid
        self.pub = Cursor(get_vcpd_mbox_pub(s, vcoreid))
        self.priv = Cursor(get_vcpd_mbox_priv(s, vcoreid))
        self.cursors = [None] * s.max_queues
        self.active = []
        self.threads = set()
        self.tasks = set()
        self.full = self.enough = self.bit_task = False
        self.streak = 0
        self.spin_ns = 0
        self.in_vcore_context = True
        self.leaving = False
        self.others = []

    def deliver(self, cur, at):
        """Runs the handler of the message in the slot at `at` (TAKEN, at place `cur.taken`), then makes it DONE."""
        raise NotImplementedError

    def deliver_bit(self, cur, ev_type):
        """Runs the handler of an event type whose bit was set."""
        raise NotImplementedError

    def sleep(self):
        """Sleeps until somebody gives this vcore a core, then enters it again (`vcore_entry`)."""
        raise NotImplementedError


def cursor_of(vc: VCore, queue: int) -> Cursor | None:
    """This vcore's cursor in the queue's own mailbox; None if the queue has none."""
    if queue >= vc.s.max_queues:
        return None
    cur = vc.cursors[queue]
    if cur is None:
        own = ld32(vc.s.mem, evq_at(vc.s, queue) + EVQ_MBOX)
        if own == 0 or own > vc.s.nr_mboxes:
            return None
        cur = Cursor(own - 1)
        vc.cursors[queue] = cur
    return cur


def handle_bits(vc: VCore, cur: Cursor) -> int:
    """Every set bit of a mailbox. Bits coalesce; a bit that is set meanwhile sets `check_bits` again."""
    s = vc.s
    at = mbox_at(s, cur.mbox)
    found = 0
    while not vc.bit_task and ld32(s.mem, at + MB_CHECK_BITS) != 0 and not (vc.full and has_looker(s, cur.mbox)):
        st32(s.mem, at + MB_CHECK_BITS, 0)
        # check_bits cleared before the bits are read: pairs with `set_bit`, bit first, then check_bits. Without it a bit
        # could be set between our look and our clearing, and nobody would look again.
        mb()
        i = 0
        while i < MB_BITMAP_WORDS:
            bits = ld64(s.mem, at + MB_BITMAP + i * 8)
            while bits != 0 and not vc.bit_task:
                bit = ctz64(bits)
                bits = bits & ~(u64(1) << bit)
                found = found + take_bit(vc, cur, i * 64 + bit)
            i = i + 1
        if vc.bit_task:
            # The rest when its task has ended, or another vcore. Relaxed, as in `show_bits`.
            st32(s.mem, at + MB_CHECK_BITS, 1)
    return found


def take_bit(vc: VCore, cur: Cursor, ev_type: int) -> int:
    """Clears one bit and handles it; 0 if another vcore was quicker. One at a time, and written down before it is
    cleared: if we die in its handler, `restore_bit` sets it again."""
    s = vc.s
    held = vcpd_at(s, vc.vcoreid) + VCPD_BIT
    bit = u64(1) << (ev_type % 64)
    st64(s.mem, held, bit_in_hand(s.me, cur.mbox, ev_type))
    # The note before the clearing: the read-modify-write is a fence.
    taken = fand64(s.mem, mbox_at(s, cur.mbox) + MB_BITMAP + ev_type // 64 * 8, ~bit) & bit
    try:
        if taken != 0:
            handle_bit(vc, cur, ev_type)
    finally:
        if not vc.bit_task:
            # Relaxed: whoever sets the bit again has learnt from the kernel, behind all our stores, that we are dead.
            st64(s.mem, held, 0)
    return 1 if taken != 0 else 0


def handle_bit(vc: VCore, cur: Cursor, ev_type: int) -> None:
    """One bit: EV_EVENT as a bit says "look at every queue", EV_CHECK_MSGS "at everybody's mail"; the rest are the
    program's."""
    if ev_type == EV_EVENT:
        look_everywhere(vc)
        if vc.full:
            pass_on(vc.s, vc.vcoreid, 0, EVENT_NOMSG)
    elif ev_type == EV_CHECK_MSGS:
        adopt_mail(vc)
    elif ev_type != EV_NONE:
        vc.deliver_bit(cur, ev_type)


def handle_mbox(vc: VCore, cur: Cursor) -> int:
    """All messages of a mailbox, then its bits."""
    return drain(vc, cur) + handle_bits(vc, cur)


def drain(vc: VCore, cur: Cursor) -> int:
    """All messages of a mailbox, one by one, until it is empty or this vcore has to leave."""
    s = vc.s
    found = 0
    while True:
        at = take(s, cur)
        if at == 0:
            return found
        found = found + 1
        if cur.mbox >= 2 * s.max_vcores or not handle_own(vc, cur, at):
            vc.deliver(cur, at)
        if must_leave(vc) or (vc.enough and cur.mbox >= 2 * s.max_vcores) or (vc.full and has_looker(s, cur.mbox)):
            return found


def handle_own(vc: VCore, cur: Cursor, at: int) -> bool:
    """Messages for the runtime itself. True if this was one, and is done."""
    s = vc.s
    ev_type = ld16(s.mem, at + SL_TYPE)
    if ev_type != EV_EVENT and ev_type != EV_CHECK_MSGS and ev_type != EV_VCORE_PREEMPT:
        return False
    if ld16(s.mem, at + SL_QUEUE) != 0 and ev_type != EV_EVENT:
        return False  # the program's own queue for this kernel event
    arg = ld64(s.mem, at + SL_ARG3)
    # What is to be looked at is remembered before the message is done, and looked at in the vcore's own loop: mailboxes
    # of mailboxes do not recurse.
    if ev_type == EV_EVENT:
        if arg < s.max_queues:
            # Answered, or passed on, before the indirection is done: died or stopped in between, it is still there.
            if vc.full and arg in vc.tasks:
                pass_on(s, vc.vcoreid, arg, 0)
            else:
                look_at(vc, arg)
                poll_queue(vc, arg)
    elif ev_type == EV_VCORE_PREEMPT and arg < s.max_vcores:
        handle_vc_preempt(vc, arg)
    elif arg < s.max_vcores and arg != vc.vcoreid:
        if arg not in vc.others:
            vc.others.append(arg)
    put_done(s, cur, cur.taken)
    return True


def must_leave(vc: VCore) -> bool:
    """Whether this vcore must stop taking messages: it was told to leave, a stop at once, or its core was taken."""
    s = vc.s
    if vc.leaving or ld32(s.mem, s.procinfo + PI_STOP) == STOP_NOW:
        return True
    return not is_running(vc_state(ld64(s.mem, map_at(s, vc.vcoreid))))


def look_at(vc: VCore, queue: int) -> None:
    """Notes a queue for this vcore's loop."""
    if queue not in vc.active:
        vc.active.append(queue)


def poll_queue(vc: VCore, queue: int) -> None:
    """Answers for a queue: POLLED with our name, so that senders need not tell us; unless another living vcore does, who
    then shares the work with us. The compare-and-swap is a full fence before the look that follows; pairs with the
    exchange to READY in `send_ucq_msg`. Without it a message could be READY too late for our look, and its sender read
    POLLED too early to tell anybody."""
    s = vc.s
    at = evq_at(s, queue) + EVQ_ALERT
    tries = 0
    while tries < WALK_MAX and queue < s.max_queues:
        tries = tries + 1
        alert = lda64(s.mem, at)
        if (alert & 15) == ALERT_POLLED:
            return
        if cas64(s.mem, at, alert, ALERT_POLLED | (s.me << 32)):
            return


def stop_polling(vc: VCore, queue: int) -> None:
    """Takes POLLED back, if it is ours. The caller looks once more afterwards (the compare-and-swap is a full fence, as
    in `poll_queue`)."""
    s = vc.s
    if queue < s.max_queues:
        cas64(s.mem, evq_at(s, queue) + EVQ_ALERT, ALERT_POLLED | (s.me << 32), ALERT_NONE)


def look_everywhere(vc: VCore) -> None:
    """Notes every queue in which something waits, or of which somebody was told (`full`), and has not answered."""
    s = vc.s
    n = num_queues(s)
    queue = 0
    while queue < n:
        cur = cursor_of(vc, queue)
        bits_at = 0 if cur is None else mbox_at(s, cur.mbox) + MB_CHECK_BITS
        if cur is not None and (news(s, cur) or ld32(s.mem, bits_at) != 0 or is_told(s, queue)):
            look_at(vc, queue)
        queue = queue + 1


def handle_queue(vc: VCore, queue: int) -> int:
    """Looks at one queue, having answered for it."""
    cur = cursor_of(vc, queue)
    if cur is None:
        stop_polling(vc, queue)  # or senders would rely on us for ever
        vc.active.remove(queue)
        return 0
    if vc.full and queue in vc.tasks:
        return 0
    vc.enough = False
    poll_queue(vc, queue)
    return handle_mbox(vc, cur)


def handle_events(vc: VCore) -> int:
    """The vcore's own mailboxes, if `notif_pending`: private first, then public."""
    s = vc.s
    at = vcpd_at(s, vc.vcoreid) + VCPD_NOTIF_PENDING
    if ld32(s.mem, at) == 0:
        return 0
    st32(s.mem, at, 0)
    # Pending cleared before the mailboxes are read: pairs with the write barrier in `post_vc_msg`, message first, then
    # pending. Without it a message could arrive unseen and its pending be cleared.
    mb()
    found = handle_mbox(vc, vc.priv)
    return found + handle_mbox(vc, vc.pub)


def handle_remote(vc: VCore) -> int:
    """Public mailboxes of others that this vcore has been told to look after. The list is written before anything in it
    is handled, so that a handler which does not return forgets nothing: what is left is sent to ourselves again."""
    found = 0
    while vc.others:
        v = vc.others.pop()
        found = found + handle_mbox(vc, Cursor(get_vcpd_mbox_pub(vc.s, v)))
    return found


def work(vc: VCore) -> int:
    """One round of vcore context: everything there is to do now. Returns how many messages were handled."""
    if not is_running(vc_state(ld64(vc.s.mem, map_at(vc.s, vc.vcoreid)))):
        core_lost(vc)
    found = handle_events(vc)
    if vc.others:
        found = found + handle_remote(vc)
    i = 0
    while i < len(vc.active):
        if not vc.threads or vc.active[i] not in vc.threads:
            found = found + handle_queue(vc, vc.active[i])
        i = i + 1
    if found:
        tell_drainers(vc.s)
    return found


def core_lost(vc: VCore) -> None:
    """This vcore's core was taken while it ran. AWAY, because it did not move: it does now, and comes back. Else what it
    answers for goes to others, and it sleeps until it is given a core again."""
    s = vc.s
    state = vc_state(lda64(s.mem, map_at(s, vc.vcoreid)))
    if state == VC_AWAY:
        vcore_entry(vc)
    elif state == VC_PREEMPTED or state == VC_BULK:
        vcore_leave(vc)
        announce(s)
        vc.sleep()
    elif state == VC_NOHOST:
        vc.leaving = True  # somebody says that this host is dead: another may be there already


def before_handler(vc: VCore, cur: Cursor, queue: int, slow: bool) -> None:
    """What must be written before a handler runs. Backlog: one more core. A handler that may take long: we do not answer
    for the queue meanwhile, and say so, so that whoever sends finds somebody else."""
    s = vc.s
    vc.streak = vc.streak + 1
    if (vc.streak & 63) == 0:
        tell_drainers(s)
    if slow:
        for32(s.mem, vcpd_at(s, vc.vcoreid) + VCPD_FLAGS, VC_LONG_HANDLER)
        stop_polling(vc, queue)
        if more_waiting(s, cur):
            start_one_more(s, vc.vcoreid)
    elif (vc.streak & 63) == 0 and more_waiting(s, cur):
        start_one_more(s, vc.vcoreid)


def after_handler(vc: VCore, queue: int, slow: bool) -> None:
    """Back from a handler: answer for the queue again, if we did not."""
    s = vc.s
    if slow:
        fand32(s.mem, vcpd_at(s, vc.vcoreid) + VCPD_FLAGS, ~u64(VC_LONG_HANDLER))
        poll_queue(vc, queue)


def vcore_yield(vc: VCore) -> bool:
    """Nothing to do: stops answering, looks once more, and asks the kernel. True if the core is gone and the host must
    sleep; False if there is more to do."""
    s = vc.s
    flags = vcpd_at(s, vc.vcoreid) + VCPD_FLAGS
    # All of them first, then one fence, then all looks.
    for queue in vc.active:
        stop_polling(vc, queue)
    mb()  # pairs with the exchange to READY, as in `poll_queue`
    for queue in vc.active:
        cur = cursor_of(vc, queue)
        if cur is not None:
            reap_skipped(s, cur)
            tidy_mbox(s, cur.mbox)
            if vc.full and queue in vc.tasks:
                continue
            if news(s, cur) or (not vc.bit_task and ld32(s.mem, mbox_at(s, cur.mbox) + MB_CHECK_BITS) != 0):
                return False
    # Claims that dead senders left in our own mail: nobody else meets them, and a drain would wait for them.
    reap_skipped(s, vc.pub)
    reap_skipped(s, vc.priv)
    # After the fence above: pairs with `want_room`, counted, fence, one more try. Pages of our own mail that have been used
    # up since that try are given back by us, or by nobody.
    if ld32(s.mem, s.procinfo + PI_POOL_WAITERS) != 0:
        tidy_mbox(s, vc.pub.mbox)
        tidy_mbox(s, vc.priv.mbox)
    # No more mail for us, before the last look at pending: pairs with `try_spam_vcore`, which posts, sets pending,
    # fences, and reads the flag again.
    fand32(s.mem, flags, ~u64(VC_CAN_RCV_MSG))
    if ld32(s.mem, vcpd_at(s, vc.vcoreid) + VCPD_NOTIF_PENDING) != 0 or not proc_yield(s, vc.vcoreid):
        for32(s.mem, flags, VC_CAN_RCV_MSG)
        return False
    # What we looked at while we ran is nobody's duty now; the next indirection names what is.
    del vc.active[:]
    tell_drainers(s)
    return True


def vcore_leave(vc: VCore) -> None:
    """The host goes away in good order, or its core was taken: what it answers for is announced to the others. No longer
    answering, by read-modify-writes, then the look in `announce`, as in `vcore_yield`."""
    s = vc.s
    fand32(s.mem, vcpd_at(s, vc.vcoreid) + VCPD_FLAGS, ~u64(VC_CAN_RCV_MSG))
    for queue in vc.active:
        stop_polling(vc, queue)
    del vc.active[:]


def vcore_entry(vc: VCore) -> bool:
    """A vcore starts, or starts again: it can be messaged, looks at its own mailboxes whatever `notif_pending` says, at
    every queue, and at the mail of vcores that nobody hosts. False if its core was taken again meanwhile."""
    s = vc.s
    if not vcore_online(s, vc.vcoreid):
        return False
    vcpd = vcpd_at(s, vc.vcoreid)
    # That we run, before we look at the mail of the others: pairs with the second look in `ultimate_fallback`.
    fand32(s.mem, vcpd + VCPD_FLAGS, ~u64(VC_PREEMPTED_FLAG | VC_LONG_HANDLER))
    for32(s.mem, vcpd + VCPD_FLAGS, VC_CAN_RCV_MSG)
    str32(s.mem, vcpd + VCPD_NOTIF_PENDING, 1)
    look_everywhere(vc)
    adopt_mail(vc)
    return True


def adopt_mail(vc: VCore) -> None:
    """Notes the public mailboxes of vcores that nobody hosts, or whose core was taken."""
    s = vc.s
    v = 0
    while v < s.max_vcores:
        if v != vc.vcoreid and not is_hosted(s, v) and has_public_mail(s, v) and v not in vc.others:
            vc.others.append(v)
        v = v + 1


def disable_notifs(vc: VCore) -> None:
    """Into vcore context: no interrupts from here on."""
    st32(vc.s.mem, vcpd_at(vc.s, vc.vcoreid) + VCPD_NOTIF_DISABLED, 1)
    vc.in_vcore_context = True


def enable_notifs(vc: VCore) -> bool:
    """Out of vcore context: interrupts on. False if there is news already: go back in."""
    s = vc.s
    vc.in_vcore_context = False
    str32(s.mem, vcpd_at(s, vc.vcoreid) + VCPD_NOTIF_DISABLED, 0)
    # On, before the look at pending: pairs with the fence in `proc_notify`, pending first, then notif_disabled.
    mb()
    if ld32(s.mem, vcpd_at(s, vc.vcoreid) + VCPD_NOTIF_PENDING) != 0:
        disable_notifs(vc)
        return False
    return True


def leave_vcore_context(vc: VCore) -> bool:
    """Before user code: nobody answers for the queues but the interrupt. False if there is news already."""
    for queue in vc.active:
        stop_polling(vc, queue)  # all of them first, then the looks, as in `vcore_yield`
    for queue in vc.active:
        if queue in vc.threads:
            continue  # its turn comes when the host has left user code, or with another vcore
        cur = cursor_of(vc, queue)
        if cur is not None and (news(vc.s, cur) or ld32(vc.s.mem, mbox_at(vc.s, cur.mbox) + MB_CHECK_BITS) != 0):
            return False
    return enable_notifs(vc)


def handle_vc_preempt(vc: VCore, vcoreid: int) -> None:
    """News that another vcore lost its core, or died: settles what it held. Its mail goes to us, its promise to look at
    queues is taken back, and the queues are looked at."""
    s = vc.s
    if vcoreid == vc.vcoreid:
        return
    name = ld64(s.mem, vcpd_at(s, vcoreid) + VCPD_HOST)
    recover_vcore(s, vcoreid, name)
    if vcoreid not in vc.others:
        vc.others.append(vcoreid)
    handle_bit(vc, vc.pub, EV_EVENT)  # every queue
