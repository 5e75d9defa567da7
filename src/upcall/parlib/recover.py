"""Taking over for hosts that are gone: what any actor may do, again and again, once a vcore's host is dead or out.

What a host leaves: its promise to look at its public mail (VC_CAN_RCV_MSG), queues that it answered for (POLLED, with its
name), messages TAKEN in its hands, a bit noted in VCPD_BIT, claims of slots that it was filling. Each is named, so each
can be taken back by whoever finds the name dead; a recoverer that dies on the way leaves the rest for the next one.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..kern.const import (
        ALERT_NONE,
        ALERT_POLLED,
        BIT_MBOX_SHIFT,
        BIT_TYPE_MASK,
        CLAIMED,
        DONE,
        EV_CHECK_MSGS,
        EV_EVENT,
        EV_NONE,
        EV_VCORE_PREEMPT,
        EVQ_ALERT,
        EVQ_MBOX,
        LIST_TRIES_MAX,
        MB_BITMAP,
        MB_BITMAP_WORDS,
        MB_CHECK_BITS,
        MB_HEAD,
        NO_VCORE,
        PAGE_HEADER,
        PAGE_MASK,
        PG_NEXT,
        PI_NR_QUEUES,
        SL_QUEUE,
        SL_TYPE,
        SL_WORD,
        SLOT_SIZE,
        VC_AWAY,
        VC_CAN_RCV_MSG,
        VC_FULL,
        VC_IN_POLL,
        VC_LONG_HANDLER,
        VC_NOHOST,
        VC_PREEMPTED,
        VC_STARTING,
        VCPD_BIT,
        VCPD_FLAGS,
        VCPD_HOST,
        VCPD_NOTIF_PENDING,
    )
    from ..kern.event import (
        get_vcpd_mbox_priv,
        get_vcpd_mbox_pub,
        send_indir,
        send_kernel_event,
        set_bit,
        spam_public_msg,
    )
    from ..kern.layout import Seg, dead_mbox, evq_at, is_real, map_at, mbox_at, onward, page_at, vcpd_at
    from ..kern.pages import has_left, name_is_dead
    from ..kern.proc import proc_wait, startcore, take_core, vc_next, vc_state
    from ..kern.ucq import empty_word
    from ..machine.door import cas64, fand32, interrupt, ld16, ld32, ld64, lda64, low32, mb, rmb, st32, st64, str32, u64
    from .mbox import has_bits, recover_mbox, waiting_in


def is_hosted(s: Seg, vcoreid: int) -> bool:
    """Whether somebody will look at this vcore's mail by itself."""
    state = vc_state(lda64(s.mem, map_at(s, vcoreid)))
    return state != VC_NOHOST and state != VC_PREEMPTED and state != VC_AWAY


def has_public_mail(s: Seg, vcoreid: int) -> bool:
    """Whether something waits in a vcore's public mailbox."""
    mbox = get_vcpd_mbox_pub(s, vcoreid)
    if (ld64(s.mem, mbox_at(s, mbox) + MB_HEAD) & PAGE_MASK) == 0:
        return ld32(s.mem, mbox_at(s, mbox) + MB_CHECK_BITS) != 0
    return waiting_in(s, mbox, 0) or ld32(s.mem, mbox_at(s, mbox) + MB_CHECK_BITS) != 0


def bit_in_hand(name: int, mbox: int, ev_type: int) -> int:
    """What VCPD_BIT says while a host has a bit in hand."""
    return (name << 32) | ((mbox + 1) << BIT_MBOX_SHIFT) | ev_type


def restore_bit(s: Seg, vcoreid: int) -> int:
    """Sets the bit again that a dead host had in hand, or the caller itself. 1 if there was one. Again and again does no
    harm: bits coalesce."""
    at = vcpd_at(s, vcoreid) + VCPD_BIT
    held = ld64(s.mem, at)
    # Not what the next host has in hand by now: a late recoverer would take its note away, and its death the bit.
    if held == 0 or ((held >> 32) != s.me and not name_is_dead(s, held >> 32)):
        return 0
    mbox = low32(held) >> BIT_MBOX_SHIFT
    if mbox != 0 and mbox <= s.nr_mboxes:
        set_bit(s, mbox - 1, held & BIT_TYPE_MASK)
    cas64(s.mem, at, held, 0)
    return 1


def num_queues(s: Seg) -> int:
    """How many event queues there are; never more than the geometry's."""
    n = ld32(s.mem, s.procinfo + PI_NR_QUEUES)
    if n > s.max_queues:
        return s.max_queues
    return n


def take_back(s: Seg, vcoreid: int, name: int) -> None:
    """Takes back what others rely on: that the vcore looks at its public mail (VC_CAN_RCV_MSG), and at the queues that
    its host, or another dead one, has answered for."""
    # No more mail for it, before its mail is looked at: pairs with `try_spam_vcore`.
    fand32(s.mem, vcpd_at(s, vcoreid) + VCPD_FLAGS, ~u64(VC_CAN_RCV_MSG | VC_LONG_HANDLER))
    n = num_queues(s)
    queue = 0
    while queue < n:
        at = evq_at(s, queue) + EVQ_ALERT
        alert = ld64(s.mem, at)
        # Other dead hosts' too: the next host of a vcore writes its own name over theirs.
        if (alert & 15) == ALERT_POLLED and ((alert >> 32) == name or name_is_dead(s, alert >> 32)):
            cas64(s.mem, at, alert, ALERT_NONE)
        queue = queue + 1


def recover_vcore(s: Seg, vcoreid: int, name: int) -> int:
    """Takes over for a host that is gone or out: its VC_CAN_RCV_MSG, what it polled, what a dead one had in its hands.
    Any actor may, again and again. Returns how many messages will be delivered again."""
    take_back(s, vcoreid, name)
    n = num_queues(s)
    queue = 0
    found = restore_bit(s, vcoreid)
    while queue < n:
        own = ld32(s.mem, evq_at(s, queue) + EVQ_MBOX)
        if own != 0 and own <= s.nr_mboxes:
            found = found + recover_mbox(s, own - 1)
        queue = queue + 1
    v = 0
    while v < s.max_vcores:
        found = found + recover_mbox(s, get_vcpd_mbox_pub(s, v))
        found = found + recover_mbox(s, get_vcpd_mbox_priv(s, v))
        v = v + 1
    recover_mbox(s, dead_mbox(s))  # of those who re-sent dead letters: no vcore's, so not counted
    return found


def host_vcore(s: Seg, vcoreid: int) -> bool:
    """A host attaches to a vcore, when it has settled what a former one has left there. It starts with a core. False if
    somebody alive hosts this vcore."""
    host = vcpd_at(s, vcoreid) + VCPD_HOST
    at = map_at(s, vcoreid)
    tries = 0
    while tries < LIST_TRIES_MAX:
        tries = tries + 1
        w = lda64(s.mem, at)
        rmb()  # the word before the name, as in `unhost_vcore`
        old = ld64(s.mem, host)
        if old != 0 and old != s.me and not name_is_dead(s, old):
            return False
        # Settled before the name is ours: with it the watchers lose sight of the former host, and whoever dies or stops on
        # the way leaves it to them. 0 may be the trace of one, too: who has taken the name away may not have come further.
        if recover_vcore(s, vcoreid, old) != 0 or old != 0:
            announce(s)
        # The name decides between two hosts, and comes first: died behind it, it is a dead name, and the next one's.
        if not cas64(s.mem, host, old, s.me):
            continue
        # A former host's; ours come before it sleeps, and when it is full.
        fand32(s.mem, vcpd_at(s, vcoreid) + VCPD_FLAGS, ~u64(VC_IN_POLL | VC_FULL))
        # If this fails another host may have come and gone since we read the word: once more.
        if cas64(s.mem, at, w, vc_next(w, VC_STARTING, s.me)):
            return True
    return False


def show_bits(s: Seg, mbox: int) -> bool:
    """Whether a bit of the mailbox is set; if so `check_bits` says it again: who cleared that may not come to the bits."""
    if not has_bits(s, mbox):
        return False
    # Relaxed: whoever reads it clears it, fences, and then reads the bits, each set by a full fence.
    st32(s.mem, mbox_at(s, mbox) + MB_CHECK_BITS, 1)
    return True


def preempt_vcore(s: Seg, vcoreid: int) -> bool:
    """Takes over for a host that is alive and does not move (stopped, or long in one handler while mail waits): its core is
    taken, what others rely on is taken back and announced to them. What it has in hand stays there. True if it had a
    core; again and again does no harm: a host that is stopped once more on its way back has promised anew.

    The host finds out when it moves: in vcore context by its word in the vcoremap, in user code by the interrupt."""
    vcpd = vcpd_at(s, vcoreid)
    name = ld64(s.mem, vcpd + VCPD_HOST)
    taken = take_core(s, vcoreid, VC_AWAY)
    take_back(s, vcoreid, name)
    proc_wait(s)
    show_bits(s, get_vcpd_mbox_pub(s, vcoreid))
    announce(s)
    if taken:
        # For a registered queue: the program may want to know. Nobody relies on it.
        s.indir.clear()
        s.indir.ev_type = EV_VCORE_PREEMPT
        s.indir.arg2 = vcoreid
        s.indir.arg3 = vcoreid
        send_kernel_event(s, s.indir, NO_VCORE)
        # Pending before the interrupt: `on_interrupt` looks there. In vcore context it ends a spin.
        str32(s.mem, vcpd + VCPD_NOTIF_PENDING, 1)
        interrupt(s.world, vcoreid)
    return taken


def announce(s: Seg) -> None:
    """After a recovery: every queue in which something waits is announced again, and the process woken, so that nothing
    waits for a vcore that will not come."""
    n = num_queues(s)
    queue = 0
    while queue < n:
        own = ld32(s.mem, evq_at(s, queue) + EVQ_MBOX)
        if own != 0 and own <= s.nr_mboxes and (waiting_in(s, own - 1, 0) or show_bits(s, own - 1)):
            state = ld64(s.mem, evq_at(s, queue) + EVQ_ALERT) & 15
            if state != ALERT_POLLED:
                st64(s.mem, evq_at(s, queue) + EVQ_ALERT, ALERT_NONE)
                send_indir(s, queue, 0)
        queue = queue + 1
    v = 0
    while v < s.max_vcores:
        if has_public_mail(s, v):
            if is_hosted(s, v):
                # It may sleep: what a dead one had in hand of its mail has come back without a word.
                str32(s.mem, vcpd_at(s, v) + VCPD_NOTIF_PENDING, 1)
                mb()  # pending before the vcoremap: pairs with the fence in `proc_yield`
                startcore(s, v)
            else:
                s.indir.ev_type = EV_CHECK_MSGS
                s.indir.arg3 = v
                spam_public_msg(s, s.indir, 0, 0)
        v = v + 1


def is_news(s: Seg, at: int) -> bool:
    """Whether the message in the slot at `at` is one between vcores: what it tells of lies elsewhere."""
    ev_type = ld16(s.mem, at + SL_TYPE)
    if ev_type == EV_EVENT:
        return True
    return (ev_type == EV_CHECK_MSGS or ev_type == EV_VCORE_PREEMPT) and ld16(s.mem, at + SL_QUEUE) == 0


def mail_waits(s: Seg, mbox: int) -> bool:
    """Whether an event waits in a vcore's mailbox: news by itself is none. Asked before a segment is removed, so a page
    that moves under the look means yes."""
    bits = ld64(s.mem, mbox_at(s, mbox) + MB_BITMAP)
    if (bits & ~(u64(1) << EV_NONE | u64(1) << EV_EVENT | u64(1) << EV_CHECK_MSGS)) != 0:
        return True
    i = 1
    while i < MB_BITMAP_WORDS:
        if ld64(s.mem, mbox_at(s, mbox) + MB_BITMAP + i * 8) != 0:
            return True
        i = i + 1
    here = lda64(s.mem, mbox_at(s, mbox) + MB_HEAD)
    pages = 0
    while (here & PAGE_MASK) != 0:
        page = here & PAGE_MASK
        gen = here >> 32
        if not is_real(s, page) or pages > s.nr_pages:
            return True
        i = (here >> 20) & 0xFFF
        while i < s.page_slots:
            at = page_at(s, page) + PAGE_HEADER + i * SLOT_SIZE
            w = lda64(s.mem, at + SL_WORD)
            if w == empty_word(gen):
                return False
            # A claim may become anything.
            if (w & 15) != DONE and ((w & 15) == CLAIMED or not is_news(s, at)):
                return True
            i = i + 1
        after = onward(lda64(s.mem, page_at(s, page) + PG_NEXT))
        # Whatever its slots have shown: those of a later generation are never EMPTY in this one.
        if has_left(s, here, after):
            return True
        here = after
        pages = pages + 1
    return False
