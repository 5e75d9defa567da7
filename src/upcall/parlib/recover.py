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
        EV_CHECK_MSGS,
        EVQ_ALERT,
        EVQ_MBOX,
        MB_CHECK_BITS,
        MB_HEAD,
        PAGE_MASK,
        PI_NR_QUEUES,
        VC_CAN_RCV_MSG,
        VC_NOHOST,
        VC_PREEMPTED,
        VCPD_BIT,
        VCPD_FLAGS,
        VCPD_NOTIF_PENDING,
    )
    from ..kern.event import get_vcpd_mbox_priv, get_vcpd_mbox_pub, send_indir, set_bit, spam_public_msg
    from ..kern.layout import Seg, evq_at, map_at, mbox_at, vcpd_at
    from ..kern.pages import name_is_dead
    from ..kern.proc import startcore, vc_state
    from ..machine.door import cas64, fand32, ld32, ld64, lda64, low32, mb, st64, str32, u64
    from .mbox import has_bits, recover_mbox, waiting_in


def is_hosted(s: Seg, vcoreid: int) -> bool:
    """Whether somebody will look at this vcore's mail by itself."""
    state = vc_state(lda64(s.mem, map_at(s, vcoreid)))
    return state != VC_NOHOST and state != VC_PREEMPTED


def has_public_mail(s: Seg, vcoreid: int) -> bool:
    """Whether something waits in a vcore's public mailbox."""
    mbox = get_vcpd_mbox_pub(s, vcoreid)
    if (ld64(s.mem, mbox_at(s, mbox) + MB_HEAD) & PAGE_MASK) == 0:
        return ld32(s.mem, mbox_at(s, mbox) + MB_CHECK_BITS) != 0
    return waiting_in(s, mbox, 0) or ld32(s.mem, mbox_at(s, mbox) + MB_CHECK_BITS) != 0


def restore_bit(s: Seg, vcoreid: int) -> int:
    """Sets the bit again that a dead host had in hand. 1 if there was one. Again and again does no harm: bits coalesce."""
    at = vcpd_at(s, vcoreid) + VCPD_BIT
    held = ld64(s.mem, at)
    if held == 0:
        return 0
    if (held >> 32) != 0 and (held >> 32) <= s.nr_mboxes:
        set_bit(s, (held >> 32) - 1, low32(held))
    cas64(s.mem, at, held, 0)
    return 1


def recover_vcore(s: Seg, vcoreid: int, name: int) -> int:
    """Takes over for a host that is gone or out: its VC_CAN_RCV_MSG, what it polled, what a dead one had in its hands.
    Any actor may, again and again. Returns how many messages will be delivered again."""
    flags = vcpd_at(s, vcoreid) + VCPD_FLAGS
    fand32(s.mem, flags, ~u64(VC_CAN_RCV_MSG))
    # No more mail for it, before its mail is looked at: pairs with `try_spam_vcore`.
    mb()
    n = ld32(s.mem, s.procinfo + PI_NR_QUEUES)
    if n > s.max_queues:
        n = s.max_queues
    queue = 0
    found = 0
    if name == 0 or name_is_dead(s, name):
        found = restore_bit(s, vcoreid)
    while queue < n:
        evq = evq_at(s, queue)
        alert = ld64(s.mem, evq + EVQ_ALERT)
        # Its promise, and those of other dead hosts: the next host of a vcore writes its own name over theirs.
        if (alert & 15) == ALERT_POLLED and ((alert >> 32) == name or name_is_dead(s, alert >> 32)):
            cas64(s.mem, evq + EVQ_ALERT, alert, ALERT_NONE)
        own = ld32(s.mem, evq + EVQ_MBOX)
        if own != 0 and own <= s.nr_mboxes:
            found = found + recover_mbox(s, own - 1)
        queue = queue + 1
    v = 0
    while v < s.max_vcores:
        found = found + recover_mbox(s, get_vcpd_mbox_pub(s, v))
        found = found + recover_mbox(s, get_vcpd_mbox_priv(s, v))
        v = v + 1
    return found


def announce(s: Seg) -> None:
    """After a recovery: every queue in which something waits is announced again, and the process woken, so that nothing
    waits for a vcore that will not come."""
    n = ld32(s.mem, s.procinfo + PI_NR_QUEUES)
    if n > s.max_queues:
        n = s.max_queues
    queue = 0
    while queue < n:
        own = ld32(s.mem, evq_at(s, queue) + EVQ_MBOX)
        if own != 0 and own <= s.nr_mboxes and (waiting_in(s, own - 1, 0) or has_bits(s, own - 1)):
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
