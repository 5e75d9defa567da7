"""Sending events to a process: the seed's functions, under its names, with its decisions.

Actors: senders (any attached thread, vcores included) run this file on the receiver's segment; the receiver's vcores run
`parlib`. Words shared between the two: a mailbox's slots and bitmap, `notif_pending` and `notif_disabled` of a vcore,
`VC_CAN_RCV_MSG` in its flags, its word in the vcoremap, and an event queue's `alert_pending`.

The order that must hold (each fence below says which line it pairs with):

    contents, READY | message in a vcore's mailbox, notif_pending | notif_pending, then notif_disabled
    post + pending, then VC_CAN_RCV_MSG again | post + pending, then the list's head again
    message READY, then alert_pending | post + pending, then the process's state

A sender may die between any two steps. `send` has then not returned, and nothing was promised; what others might rely on
is `alert_pending`, which says *doing* with the sender's name until the indirection is out, and a vcoremap word that says
STARTING until the wake is out. Both are done again by whoever finds them.

Sending from a signal handler's C context is not possible here: Python runs handlers between bytecodes, never inside a
call into this file.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..machine.door import (
        cas64,
        copy_in,
        for32,
        for64,
        ld32,
        ld64,
        lda32,
        lda64,
        mb,
        rmb,
        st32,
        str32,
        u64,
        wmb,
        wrmb,
        xchg32,
    )
    from .arena import alloc_block, block_capacity, block_data, return_block
    from .const import (
        ALERT_DOING,
        ALERT_DONE,
        ALERT_POLLED,
        AS_INDIRS,
        BAD_MAILBOX,
        BAD_QUEUE,
        BAD_TYPE,
        BAD_VCORE,
        BUSY,
        CORRUPT,
        EV_CHECK_MSGS,
        EV_EVENT,
        EV_POSIX_SIGNAL,
        EVENT_INDIR,
        EVENT_IPI,
        EVENT_NOMSG,
        EVENT_NOTHROTTLE,
        EVENT_ROUNDROBIN,
        EVENT_SPAM_FLAGS,
        EVENT_SPAM_PUBLIC,
        EVENT_VCORE_APPRO,
        EVENT_VCORE_MUST_RUN,
        EVENT_VCORE_PRIVATE,
        EVQ_ALERT,
        EVQ_FLAGS,
        EVQ_MBOX,
        EVQ_USED,
        EVQ_VCORE,
        FULL,
        GONE,
        LIST_TRIES_MAX,
        MAX_NR_EVENT,
        MB_BITMAP,
        MB_CHECK_BITS,
        NO_VCORE,
        OK,
        P_DYING,
        P_WAITING,
        VC_BULK,
        VC_CAN_RCV_MSG,
        VC_FULL,
        VC_LONG_HANDLER,
        VC_OFFLINE,
        VC_ONLINE,
        VCPD_FLAGS,
        VCPD_NOTIF_PENDING,
    )
    from .layout import Msg, Seg, count, evq_at, kernel_evt_at, map_at, mbox_at, vcoreid_is_safe, vcpd_at
    from .proc import (
        can_start,
        is_mcp,
        list_first,
        num_vcores,
        proc_notify,
        proc_state,
        start_one_more,
        startcore,
        vc_state,
        vcore_is_mapped,
        vcore_will_look,
    )
    from .ucq import send_ucq_msg


def get_vcpd_mbox_priv(s: Seg, vcoreid: int) -> int:
    """The number of a vcore's private mailbox: only that vcore handles it."""
    return vcoreid * 2 + 1


def get_vcpd_mbox_pub(s: Seg, vcoreid: int) -> int:
    """The number of a vcore's public mailbox: another vcore may handle it."""
    return vcoreid * 2


def get_vcpd_mbox(s: Seg, vcoreid: int, ev_flags: int) -> int:
    if ev_flags & EVENT_VCORE_PRIVATE:
        return get_vcpd_mbox_priv(s, vcoreid)
    return get_vcpd_mbox_pub(s, vcoreid)


def queue_mbox(s: Seg, queue: int) -> int:
    """The number of a program queue's own mailbox."""
    return 2 * s.max_vcores + queue


def can_msg_vcore(s: Seg, vcoreid: int) -> bool:
    """Whether the vcore promises to look at its public mailbox before it stops looking."""
    return (ld32(s.mem, vcpd_at(s, vcoreid) + VCPD_FLAGS) & VC_CAN_RCV_MSG) != 0


def set_vcore_msgable(s: Seg, vcoreid: int) -> None:
    """Says that a vcore can be messaged. Only once it is sure: a core has been given to it."""
    for32(s.mem, vcpd_at(s, vcoreid) + VCPD_FLAGS, VC_CAN_RCV_MSG)


def set_bit(s: Seg, mbox: int, ev_type: int) -> int:
    """Sets an event type's bit; repeats coalesce."""
    if ev_type >= s.max_types:
        return BAD_TYPE
    at = mbox_at(s, mbox)
    word_at = at + MB_BITMAP + ev_type // 64 * 8
    bit = u64(1) << (ev_type % 64)
    # A bit that is set, with check_bits set after it, will be seen by whoever clears check_bits and looks again: nothing
    # to do. The fence orders the caller's earlier writes before these looks; pairs with the one in `handle_bits`.
    mb()
    if (lda64(s.mem, word_at) & bit) != 0 and lda32(s.mem, at + MB_CHECK_BITS) != 0:
        return OK
    for64(s.mem, word_at, bit)
    # Bit before check_bits: pairs with `handle_bits`, which clears check_bits, fences, reads the bits. Exchanged, not
    # stored: the next layer reads alert_pending or a state after it (order 6 of the protocol).
    xchg32(s.mem, at + MB_CHECK_BITS, 1)
    return OK


def post_ev_msg(s: Seg, mbox: int, msg: Msg, ev_flags: int) -> int:
    """Posts a message, or its type's bit, to a mailbox."""
    if mbox >= s.nr_mboxes:
        return BAD_MAILBOX
    if ev_flags & EVENT_NOMSG:
        return set_bit(s, mbox, msg.ev_type)
    return send_ucq_msg(s, mbox, msg)


def post_vc_msg(s: Seg, vcoreid: int, mbox: int, msg: Msg, ev_flags: int) -> int:
    """Posts to a vcore's mailbox and sets `notif_pending`, IPI or not: a vcore that is about to yield looks there."""
    status = post_ev_msg(s, mbox, msg, ev_flags)
    if status != OK:
        return status
    # Message before notif_pending: pairs with `handle_events`, which clears pending, fences, then looks into the
    # mailboxes. The other way round, a vcore could clear pending, find nothing, and sleep on the message.
    wmb()
    str32(s.mem, vcpd_at(s, vcoreid) + VCPD_NOTIF_PENDING, 1)
    return OK


def try_notify(s: Seg, vcoreid: int, ev_flags: int) -> None:
    """Interrupts the vcore if the flags say so and it is mapped (an unlocked peek: a slight optimisation)."""
    if (ev_flags & EVENT_IPI) and vcore_is_mapped(s, vcoreid):
        proc_notify(s, vcoreid)


def spam_vcore(s: Seg, vcoreid: int, msg: Msg, ev_flags: int) -> int:
    """The message to the vcore's public mailbox, and an IPI if the flags say so. An indirection that finds no room (or a
    mailbox that is busy or corrupt) becomes its type's bit: EV_EVENT as a bit says "look at every queue". The event that it
    announces is in its mailbox already: it must not stay unannounced."""
    mbox = get_vcpd_mbox_pub(s, vcoreid)
    status = post_vc_msg(s, vcoreid, mbox, msg, ev_flags)
    if status != OK and (msg.ev_type == EV_EVENT or msg.ev_type == EV_CHECK_MSGS):
        status = post_vc_msg(s, vcoreid, mbox, msg, ev_flags | EVENT_NOMSG)
    if status == OK:
        try_notify(s, vcoreid, ev_flags)
        ask_for_help(s, vcoreid)
    return status


def try_spam_vcore(s: Seg, vcoreid: int, msg: Msg, ev_flags: int) -> bool:
    """Messages a vcore that may or may not have VC_CAN_RCV_MSG. True if the message will be dealt with."""
    if not can_msg_vcore(s, vcoreid):
        return False
    s.why = spam_vcore(s, vcoreid, msg, ev_flags)
    if s.why != OK:
        return True
    # notif_pending before the second look: pairs with `vcore_yield`, which clears VC_CAN_RCV_MSG, fences, and reads
    # pending. The first look above is only an optimisation; without the second, mail for a vcore that has stopped looking.
    # The flag alone is not enough: a sender that gave the vcore its core may set it late, when the vcore sleeps again.
    wrmb()
    return can_msg_vcore(s, vcoreid) and vcore_will_look(s, vcoreid)


def spam_list_member(s: Seg, list_state: int, msg: Msg, ev_flags: int) -> bool:
    """Messages the head of a list of vcores, chasing it while it changes. It is always safe to fail: the caller has the
    ultimate fallback.

    The seed relies on VC_CAN_RCV_MSG, or on the vcore still being the head. Ours asks the vcore's own word: that it runs
    says what both were to say, and a head that is only about to be woken is not relied on but woken."""
    loops = 0
    v = list_first(s, list_state, 0)
    while v != NO_VCORE:
        s.why = spam_vcore(s, v, msg, ev_flags)
        if s.why != OK:
            return True
        wrmb()  # notif_pending before the vcoremap: pairs with `proc_yield`, off the list, fence, pending again
        if list_state == VC_BULK:
            # This one, not whoever is the head by then: nobody else looks at its mail.
            if startcore(s, v):
                return True
        elif vcore_will_look(s, v):
            return True
        loops = loops + 1
        if loops > LIST_TRIES_MAX:
            return False
        v = list_first(s, list_state, 0)
    return False


def fallback_vcore(s: Seg, vcoreid: int) -> int:
    """The vcore for the ultimate fallback: one that a core can be given to, the wanted one if it can be. NO_VCORE if
    there is none: nobody hosts any, or no host moves."""
    n = num_vcores(s)
    if vcoreid < n and can_start(vc_state(lda64(s.mem, map_at(s, vcoreid)))):
        return vcoreid
    v = 0
    while v < n:
        if can_start(vc_state(lda64(s.mem, map_at(s, v)))):
            return v
        v = v + 1
    return NO_VCORE


def ultimate_fallback(s: Seg, msg: Msg, vcoreid: int, ev_flags: int) -> None:
    """All vcores have yielded, or nothing is sure. The seed locks here; ours posts first and then makes sure, word by
    word, that the vcore it posted to will look: a core is given to it, or it has one. If no vcore can be given one, the
    message waits with the wanted one: whoever comes first looks at the mail of those that nobody hosts, or that are AWAY."""
    tries = 0
    while tries < LIST_TRIES_MAX:
        tries = tries + 1
        v = fallback_vcore(s, vcoreid)
        if v == NO_VCORE:
            s.why = spam_vcore(s, vcoreid, msg, ev_flags)
            # Posted (the exchange to READY, or of check_bits, is the fence) before the hosts again: pairs with
            # `vcore_entry`, which says that it runs before it looks at the mail of the others. Without this look, a first
            # vcore could come between and neither see the other. Pending may come late: a vcore that comes looks anyway.
            if s.why != OK or fallback_vcore(s, vcoreid) == NO_VCORE:
                return
            continue
        s.why = spam_vcore(s, v, msg, ev_flags)
        if s.why != OK:
            return
        wrmb()  # post + pending before the vcoremap: pairs with the fence in `proc_yield`
        if startcore(s, v):
            set_vcore_msgable(s, v)
            return
    s.why = BUSY  # each time its host left in between: whether anybody looks is not known


def spam_public_msg(s: Seg, msg: Msg, vcoreid: int, ev_flags: int) -> None:
    """Makes sure that the message is sent to some vcore, the wanted one if it can be. With MUST_RUN, one that runs."""
    if not (ev_flags & EVENT_VCORE_MUST_RUN):
        if try_spam_vcore(s, vcoreid, msg, ev_flags):
            return
    if proc_state(s) != P_WAITING:
        if spam_list_member(s, VC_ONLINE, msg, ev_flags):
            return
        if spam_list_member(s, VC_BULK, msg, ev_flags):
            return
        v = list_first(s, VC_OFFLINE, 0)
        if v != NO_VCORE and can_msg_vcore(s, v):
            # Made messageable by an earlier event, whose sender may not have come to the wake, or came too late: a core
            # all the same.
            s.why = spam_vcore(s, v, msg, ev_flags)
            wrmb()  # post + pending before the vcoremap: pairs with the fence in `proc_yield`
            if s.why != OK or startcore(s, v):
                return
    ultimate_fallback(s, msg, vcoreid, ev_flags)


def ask_for_help(s: Seg, vcoreid: int) -> None:
    """News for a vcore that is full, or in a handler which may take long: one more core, if there is one to have."""
    if ld32(s.mem, vcpd_at(s, vcoreid) + VCPD_FLAGS) & (VC_LONG_HANDLER | VC_FULL):
        start_one_more(s, vcoreid)


def send_indir(s: Seg, queue: int, vcoreid: int) -> None:
    """Sends EV_EVENT(queue) to a vcore: "look at this queue". Throttled by `alert_pending`.

    Unlike the seed's flag ours has two set states. DONE (or POLLED by a named host): somebody will look, nothing to do.
    DOING: a sender is on its way, and may be killed or stopped on it; so we send an indirection of our own."""
    if not vcoreid_is_safe(s, vcoreid):
        vcoreid = 0  # callers pass on what stands in the queue
    evq = evq_at(s, queue)
    flags = ld32(s.mem, evq + EVQ_FLAGS)
    alert = ld64(s.mem, evq + EVQ_ALERT)
    if not (flags & EVENT_NOTHROTTLE):
        state = alert & 15
        if state == ALERT_DONE or state == ALERT_POLLED:
            return
    mine = ALERT_DOING | (s.me << 32)
    # Doing before the indirection: the receiver clears alert_pending when it gets the indirection. A sender that wrote
    # it afterwards would undo that, and every later sender would rely on an indirection that is already handled. If the
    # word changes under us, another sender or the receiver was here: send all the same.
    marked = cas64(s.mem, evq + EVQ_ALERT, alert, mine)
    count(s, AS_INDIRS, 1)
    s.indir.ev_type = EV_EVENT
    s.indir.arg3 = queue
    s.why = OK
    spam_public_msg(s, s.indir, vcoreid, flags & EVENT_SPAM_FLAGS)
    if s.why == OK and marked:
        cas64(s.mem, evq + EVQ_ALERT, mine, ALERT_DONE)


def pick_vcore(s: Seg, evq: int, flags: int, vcoreid: int) -> int:
    """The vcore to message, or to try first: the queue's, the proposed one for APPRO, the next one for ROUNDROBIN."""
    wanted = ld32(s.mem, evq + EVQ_VCORE)
    if flags & EVENT_VCORE_APPRO:
        if vcoreid != NO_VCORE:
            wanted = vcoreid
    if flags & EVENT_ROUNDROBIN:
        n = num_vcores(s)
        if n == 0:
            return 0  # the seed's remainder by zero: no vcore yet, so the first one to come
        wanted = (ld32(s.mem, evq + EVQ_VCORE) + 1) % n
        st32(s.mem, evq + EVQ_VCORE, wanted)
    return wanted


def put_payload(s: Seg, msg: Msg) -> int:
    """Copies the payload at `msg.src` into a block of the arena, this actor's, in `msg.block`. OK; FULL, or CORRUPT (the
    block has become smaller under our hands), and then there is no block."""
    msg.block = alloc_block(s, msg.length)
    if msg.block == 0:
        return FULL
    capacity = block_capacity(s, msg.block)
    if capacity < msg.length:
        return_block(s, msg.block)
        msg.block = 0
        return CORRUPT
    copy_in(s.mem, block_data(s, msg.block, capacity), msg.src, msg.length)
    return OK


def send_event(s: Seg, queue: int, msg: Msg, vcoreid: int) -> int:
    """Sends an event to an event queue, as its flags say; `vcoreid` is what the sender proposes (for VCORE_APPRO) or
    NO_VCORE. OK, or why nothing was sent: GONE, BAD_QUEUE, BAD_VCORE, BAD_MAILBOX, BAD_TYPE, FULL, BUSY, CORRUPT."""
    if proc_state(s) == P_DYING:
        return GONE
    if queue >= s.max_queues:
        return BAD_QUEUE
    evq = evq_at(s, queue)
    if ld32(s.mem, evq + EVQ_USED) == 0:
        return BAD_QUEUE
    flags = ld32(s.mem, evq + EVQ_FLAGS)
    wanted = 0
    if is_mcp(s):
        wanted = pick_vcore(s, evq, flags, vcoreid)
    if not vcoreid_is_safe(s, wanted):
        return BAD_VCORE
    msg.queue = queue + 1
    if flags & EVENT_SPAM_PUBLIC:
        s.why = OK
        spam_public_msg(s, msg, wanted, flags & (EVENT_SPAM_FLAGS | EVENT_NOMSG))
        return s.why if s.why != OK else unless_gone(s)
    own = ld32(s.mem, evq + EVQ_MBOX)
    if own == 0:
        # A vcore's mailbox. `notif_pending` is needed whatever the flags say, or the vcore could sleep on the message.
        status = post_vc_msg(s, wanted, get_vcpd_mbox(s, wanted, flags), msg, flags)
        if status == OK:
            wake_if_private(s, wanted, flags)
    else:
        status = post_ev_msg(s, own - 1, msg, flags)
    if status != OK:
        return status
    mcp = is_mcp(s)
    if (flags & EVENT_INDIR) or (own != 0 and not mcp):
        # An SCP is told whatever the flags say, as in the seed: it has one vcore, and nobody else would look.
        # The message before alert_pending, a store before a load: the exchange to READY or of check_bits is the full
        # fence; pairs with `poll_queue`, which clears alert_pending, fences, and looks. The seed has a write barrier.
        send_indir(s, queue, wanted)
    else:
        try_notify(s, wanted, flags)
    if not mcp:
        # SCP: everything above before the state; pairs with `proc_wait` and `proc_yield`. No fence here: each way has
        # passed one since it last wrote (the exchange to READY or of check_bits, `set_bit`'s, `wake_if_private`'s, those
        # behind a spam). The state is a summary, and may say RUNNING for a while though the vcore sleeps: its own word
        # decides.
        if proc_state(s) == P_WAITING or not vcore_will_look(s, 0):
            startcore(s, 0)
    return unless_gone(s)


def unless_gone(s: Seg) -> int:
    """What every send ends with: OK, or GONE if the event may go with the segment. The state after the message (the exchange
    to READY, or of check_bits, is the fence): pairs with `finish`, which says DYING, fences, and looks whether something
    waits. Without this look, both could miss, and a sent event be lost."""
    if proc_state(s) == P_DYING:
        return GONE
    return OK


def wake_if_private(s: Seg, vcoreid: int, flags: int) -> None:
    """Mail in a vcore's own mailbox, with an IPI: a parked host gets its core. Nobody else would tell it."""
    # Pending before the vcoremap: pairs with the fence in `proc_yield`.
    wrmb()
    if (flags & (EVENT_IPI | EVENT_VCORE_PRIVATE)) and not vcore_will_look(s, vcoreid):
        startcore(s, vcoreid)
    if not (flags & EVENT_VCORE_PRIVATE):
        look_after(s, vcoreid)


def look_after(s: Seg, vcoreid: int) -> None:
    """Public mail for a vcore that nobody hosts, or whose host does not move: another one is told to handle it. The caller
    has posted, and fenced: pairs with whoever takes a host away, who changes the vcore's word, and then announces what waits
    in its mail (`announce`). If no vcore can be given a core nobody is told: the first one to come looks (`vcore_entry`)."""
    if can_start(vc_state(lda64(s.mem, map_at(s, vcoreid)))) or fallback_vcore(s, vcoreid) == NO_VCORE:
        return
    s.indir.ev_type = EV_CHECK_MSGS
    s.indir.arg3 = vcoreid
    spam_public_msg(s, s.indir, vcoreid, 0)


def send_kernel_event(s: Seg, msg: Msg, vcoreid: int) -> int:
    """Sends a kernel event to the queue that the process has registered for its type. None registered: BAD_QUEUE, and
    nothing happens; it is the process's choice."""
    if msg.ev_type >= MAX_NR_EVENT:
        return BAD_TYPE
    queue = ld32(s.mem, kernel_evt_at(s, msg.ev_type))
    if queue == 0:
        return BAD_QUEUE
    rmb()  # the registration before the queue's contents: pairs with the release in `register_kernel_queue`
    return send_event(s, queue - 1, msg, vcoreid)


def post_vcore_event(s: Seg, msg: Msg, vcoreid: int, ev_flags: int) -> int:
    """Writes to one vcore's public or private mailbox, with no queue; then sees to it that the vcore looks."""
    if proc_state(s) == P_DYING:
        return GONE
    if not vcoreid_is_safe(s, vcoreid) or vcoreid >= num_vcores(s):
        return BAD_VCORE
    msg.queue = 0
    status = post_vc_msg(s, vcoreid, get_vcpd_mbox(s, vcoreid, ev_flags), msg, ev_flags)
    if status != OK:
        return status
    # Pending before the vcoremap: pairs with the fence in `proc_yield`. The seed leaves the waking to its callers.
    wrmb()
    if vcore_will_look(s, vcoreid):
        proc_notify(s, vcoreid)
    else:
        startcore(s, vcoreid)
    if not (ev_flags & EVENT_VCORE_PRIVATE):
        look_after(s, vcoreid)
    return unless_gone(s)


def send_posix_signal(s: Seg, msg: Msg, sig_nr: int) -> int:
    """A kernel event with the signal's number in arg1; nothing happens if no queue is registered for it."""
    msg.clear()
    msg.ev_type = EV_POSIX_SIGNAL
    msg.arg1 = sig_nr
    return send_kernel_event(s, msg, 0)
