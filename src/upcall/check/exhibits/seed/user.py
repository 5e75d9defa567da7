"""The user's side of the seed, as the design describes it: a vcore that handles events, yields, comes back, and recovers
another one that was preempted."""

from __future__ import annotations

from .event import Sender
from .proc import STARTS
from .words import (
    EV_CHECK_MSGS,
    EV_EVENT,
    EV_VCORE_PREEMPT,
    VC_CAN_RCV_MSG,
    VC_K_LOCK,
    VC_PREEMPTED,
    Mailbox,
    Proc,
    get_ucq_msg,
)

BITS_FIRST, BITS_AFTER = "clear check_bits before the scan", "clear check_bits after the scan"


class Restarted(Exception):
    """A vcore that gave its core away has one again: it starts anew, and what it was about is over."""


class Vcore(Sender):
    """One vcore. `bits`: when `handle_bits` clears `check_bits`; the design can be read both ways."""

    def __init__(self, p: Proc, v: int, bits: str = BITS_FIRST) -> None:
        super().__init__(p, 8 + v)
        self.v = v
        self.bits = bits
        self.me = p.vcpd[v]

    def handle_events(self) -> bool:
        """If something is pending: the private mailbox, then the public one."""
        if not self.me.notif_pending.load():
            return False
        self.me.notif_pending.store(0)
        self.s.mb()  # pending cleared before the look: pairs with `post_vc_msg`
        self.handle_mbox(self.me.private)
        self.handle_mbox(self.me.public)
        return True

    def handle_mbox(self, mbox: Mailbox) -> None:
        """All messages, then the bits."""
        while True:
            msg = get_ucq_msg(mbox, self.p.waits)
            if msg < 0:
                break
            self.handle(msg)
        self.handle_bits(mbox)

    def handle_bits(self, mbox: Mailbox) -> None:
        """Every set bit, if `check_bits` says so, and again if it says so again."""
        while mbox.check_bits.load():
            if self.bits == BITS_FIRST:
                mbox.check_bits.store(0)
                self.s.mb()
            bits = mbox.bitmap.exchange(0)
            i = 0
            while bits >> i:
                if bits >> i & 1:
                    self.s.note("got", i)
                i += 1
            if self.bits == BITS_AFTER:
                mbox.check_bits.store(0)
                self.s.mb()

    def handle(self, msg: int) -> None:
        """One message."""
        if msg & ~255 == EV_EVENT:
            queue = self.p.queues[msg & 255]
            queue.alert_pending.store(0)
            self.s.mb()  # cleared before the look: pairs with `send_indir`
            assert queue.mbox is not None
            self.handle_mbox(queue.mbox)
        elif msg & ~255 == EV_VCORE_PREEMPT:
            self.handle_vc_preempt(msg & 255)
        elif msg & ~255 == EV_CHECK_MSGS:
            self.steal(msg & 255)
        else:
            self.s.note("got", msg)

    def handle_vc_preempt(self, v: int) -> None:
        """News that a vcore lost its core. If it was in user code, its uthread is taken, and its mailbox handled; in vcore
        context it must run on itself: it gets this core, and looks into the mailbox of the one that gave it."""
        if v == self.v:
            return  # news about itself
        vcpd = self.p.vcpd[v]
        while True:
            flags = vcpd.flags.load()
            if not flags & VC_K_LOCK:
                break
        if not flags & VC_PREEMPTED:
            return
        if not vcpd.notif_disabled.load():
            self.steal(v)
        elif self.change_vcore(self.v, v):
            # The mailbox of one that gives its core away must not be forgotten: the other one is told before it starts.
            self.post_vc_msg(v, vcpd.public, EV_CHECK_MSGS | self.v, 0)
            self.s.interrupt(STARTS + v)
            self.s.rest(STARTS + self.v)
            raise Restarted

    def steal(self, v: int) -> None:
        """Does what a preempted vcore would: nobody may rely on it from then on."""
        vcpd = self.p.vcpd[v]
        flags = vcpd.flags.load()
        while flags & VC_PREEMPTED:
            if vcpd.flags.cas(flags, flags & ~VC_CAN_RCV_MSG):
                self.s.mb()  # nobody relies on it any more, before the look at its mail: pairs with `try_spam_vcore`
                self.handle_mbox(vcpd.public)
                self.s.note("recovered", v)
                return
            flags = vcpd.flags.load()

    def vcore_yield(self) -> bool:
        """Gives the core up, unless something came. True: it is gone."""
        self.me.flags.keep_bits(~VC_CAN_RCV_MSG)
        if not self.handle_events() and self.proc_yield(self.v):
            return True
        self.me.flags.set_bits(VC_CAN_RCV_MSG)
        return False

    def leave_vcore_context(self) -> bool:
        """Notifications on. False: something is pending, and they are off again."""
        # An interrupt that came in vcore context was thrown away.
        self.s.interrupt(self.v)
        self.s.rest(self.v)
        self.me.notif_disabled.store(0)
        self.s.mb()  # on before the look at pending: pairs with `proc_notify`
        if self.me.notif_pending.load():
            self.me.notif_disabled.store(1)
            return False
        return True

    def lives(self, *, user: bool = False) -> None:
        """Handles what there is; then yields and sleeps, or (`user`) runs user code, which only a notification ends."""
        while True:
            try:
                self.works(user)
            except Restarted:
                pass

    def works(self, user: bool) -> None:
        """One round of its life."""
        self.handle_events()
        if not user:
            if self.vcore_yield():
                self.s.rest(STARTS + self.v)
        elif self.leave_vcore_context():
            self.s.rest(self.v)
            self.me.notif_disabled.store(1)

    def lives_single(self, *, user: bool = False) -> None:
        """As `lives`, while the process is a single-core one."""
        while True:
            self.handle_events()
            if not user:
                if self.proc_yield_s():
                    self.s.rest(STARTS)
            elif self.leave_vcore_context():
                self.s.rest(0)
                self.me.notif_disabled.store(1)
