"""The seed: "send an event to a process", as its event.c says it, decision for decision. Line numbers are that file's.

What it owes to others, and what they owe to it, is argued in its own comments; whether it holds is what the scenarios ask.
"""

from __future__ import annotations

from ...plan import Word
from .proc import Kernel
from .words import (
    DYING,
    EV_EVENT,
    FALLBACK,
    INDIR,
    IPI,
    MUST_RUN,
    NOMSG,
    NOTHROTTLE,
    ROUNDROBIN,
    SPAM_FLAGS,
    SPAM_PUBLIC,
    VC_CAN_RCV_MSG,
    VCORE_APPRO,
    VCORE_PRIVATE,
    WAITING,
    Mailbox,
    head,
    send_ucq_msg,
)  # fmt: skip

LOOPS_MAX = 2
"""Tries of the walk along a list's heads. The seed makes ten; its last one is what matters, and comes sooner here."""


class Sender(Kernel):
    """Kernel code that sends."""

    def can_msg_vcore(self, v: int) -> bool:
        """Lines 52-56."""
        flags = self.p.vcpd[v].flags.load()
        return bool(flags & VC_CAN_RCV_MSG)

    def set_vcore_msgable(self, v: int) -> None:
        """Lines 60-64."""
        self.p.vcpd[v].flags.set_bits(VC_CAN_RCV_MSG)

    def post_ev_msg(self, mbox: Mailbox, msg: int, flags: int) -> None:
        """Lines 71-84."""
        if flags & NOMSG:
            mbox.bitmap.set_bits(1 << msg)
            mbox.check_bits.store(1)
        else:
            send_ucq_msg(mbox, msg)

    def post_vc_msg(self, v: int, mbox: Mailbox, msg: int, flags: int) -> None:
        """Lines 90-101."""
        self.post_ev_msg(mbox, msg, flags)
        self.s.wmb()  # the message before notif_pending
        self.p.vcpd[v].notif_pending.store(1)

    def try_notify(self, v: int, flags: int) -> None:
        """Lines 105-110: an unlocked peek at the vcoremap."""
        if flags & IPI and self.p.vcpd[v].mapped.load():
            self.proc_notify(v)

    def spam_vcore(self, v: int, msg: int, flags: int) -> None:
        """Lines 114-119."""
        self.post_vc_msg(v, self.p.vcpd[v].public, msg, flags)
        self.try_notify(v, flags)

    def try_spam_vcore(self, v: int, msg: int, flags: int) -> bool:
        """Lines 124-136."""
        if self.can_msg_vcore(v):
            self.spam_vcore(v, msg, flags)
            self.s.mb()  # notif_pending before the second look
            if self.can_msg_vcore(v):
                return True
        return False

    def spam_list_member(self, listed: Word, msg: int, flags: int) -> bool:
        """Lines 145-189."""
        loops = 0
        v = head(listed)
        while v >= 0:
            self.spam_vcore(v, msg, flags)
            self.s.mb()  # notif_pending before the looks that follow
            if self.can_msg_vcore(v):
                return True
            first = head(listed)
            if first == v:
                return True
            loops += 1
            if loops > LOOPS_MAX:
                return False
            v = first
        return False

    def spam_public_msg(self, msg: int, v: int, flags: int) -> None:
        """Lines 212-292."""
        p = self.p
        if not flags & MUST_RUN and self.try_spam_vcore(v, msg, flags):
            return
        if p.state.load() != WAITING:
            if self.spam_list_member(p.online, msg, flags):
                return
            if self.spam_list_member(p.bulk, msg, flags):
                return
            v = head(p.inactive)
            if v >= 0 and self.try_spam_vcore(v, msg, flags):
                if p.state.load() == WAITING:
                    self.proc_wakeup()
                return
        self.ultimate_fallback(msg, flags)

    def ultimate_fallback(self, msg: int, flags: int) -> None:
        """Lines 249-291, from the label on."""
        p = self.p
        self.spin_lock()
        if p.state.load() != WAITING:
            v = head(p.online)
            if v < 0:
                v = head(p.bulk)
            if v >= 0:
                self.spam_vcore(v, msg, flags)
                self.spin_unlock()
                return
        v = head(p.inactive)
        assert v >= 0, "the seed asserts that there is an inactive vcore"
        self.spam_vcore(v, msg, flags)
        self.set_vcore_msgable(v)
        self.spin_unlock()
        self.proc_wakeup()

    def send_indir(self, queue: int, v: int) -> None:
        """Lines 295-332."""
        q = self.p.queues[queue]
        if not q.flags & NOTHROTTLE and q.alert_pending.load():
            return
        q.alert_pending.store(1)
        self.s.wmb()  # alert_pending before the indirection
        if not q.flags & FALLBACK:
            self.spam_vcore(v, EV_EVENT | queue, q.flags)
            return
        self.spam_public_msg(EV_EVENT | queue, v, q.flags & SPAM_FLAGS)

    def send_event(self, queue: int, msg: int, v: int = 0) -> None:
        """Lines 340-445. Pointers need no check here: a queue is a number that the scenario gives."""
        p = self.p
        q = p.queues[queue]
        if p.state.load() == DYING:
            return
        if not p.mcp.load():
            self.spam_vcore(0, msg, q.flags)
            self.s.mb()  # notif_pending before the look at the state: pairs with `proc_yield_s`
            if p.state.load() == WAITING:
                self.proc_wakeup()
            return
        if not q.flags & VCORE_APPRO:
            v = q.vcore.load()
        if q.flags & ROUNDROBIN:
            last = q.vcore.load()
            count = p.num_vcores.load()
            v = (last + 1) % count
            q.vcore.store(v)
        if q.flags & SPAM_PUBLIC:
            self.spam_public_msg(msg, v, q.flags & SPAM_FLAGS)
            return
        mbox = q.mbox
        if mbox is None:
            mbox = p.vcpd[v].private if q.flags & VCORE_PRIVATE else p.vcpd[v].public
        self.post_ev_msg(mbox, msg, q.flags)
        self.s.wmb()  # the message before the vcore is told
        if q.flags & INDIR:
            self.send_indir(queue, v)
        else:
            self.try_notify(v, q.flags)
