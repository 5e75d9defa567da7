"""The process and vcore layer that the seed calls into, as the design describes it: the lock and the lists, waking,
yielding, notifications, preemption. Each `Kernel` is one core's worth of kernel: an actor of its own."""

from __future__ import annotations

from ...plan import Scenario
from .words import (
    DYING,
    RUNNABLE_M,
    RUNNABLE_S,
    RUNNING_M,
    RUNNING_S,
    VC_CAN_RCV_MSG,
    VC_K_LOCK,
    VC_PREEMPTED,
    WAITING,
    Proc,
    head,
    insert_head,
    remove,
)  # fmt: skip

STARTS, RUNNABLE = 8, 16
"""Interrupt STARTS + v: vcore v is given a core. Interrupt v: its notification. RUNNABLE: the core scheduler has work."""


class Kernel:
    """Kernel code on one core. `number` is what it writes into the lock, so that a check can tell whose it is."""

    def __init__(self, p: Proc, number: int) -> None:
        self.p = p
        self.s: Scenario = p.s
        self.number = number
        self.check_key = ("kernel", number)

    def spin_lock(self) -> None:
        """proc_lock: spins until it is free."""
        while not self.p.lock.cas(0, self.number):
            pass

    def spin_unlock(self) -> None:
        """What was done under the lock before the lock's release."""
        self.p.lock.store(0, release=True)

    def proc_notify(self, v: int) -> None:
        """Interrupts a vcore whose notifications are on. One in vcore context throws it away: the flag is enough."""
        vcpd = self.p.vcpd[v]
        vcpd.notif_pending.store(1)
        self.s.mb()  # pending before the look at disabled: pairs with `leave_vcore_context`
        if not vcpd.notif_disabled.load():
            self.s.interrupt(v)

    def proc_wakeup(self) -> None:
        """A WAITING process is runnable, and is given a core. Any other state: nothing to do."""
        self.spin_lock()
        state = self.p.state.load()
        if state == WAITING:
            mcp = self.p.mcp.load()
            self.p.state.store(RUNNABLE_M if mcp else RUNNABLE_S)
        self.spin_unlock()
        if state == WAITING:
            self.give_core()

    def give_core(self) -> None:
        """The core scheduler: a core for a runnable process, to a bulk-preempted vcore before an inactive one."""
        p = self.p
        self.spin_lock()
        v = -1
        state = p.state.load()
        if state == RUNNABLE_S:
            p.state.store(RUNNING_S)
            v = 0
            p.vcpd[0].notif_disabled.store(1)
            p.vcpd[0].mapped.store(1)
        elif state == RUNNABLE_M:
            p.state.store(RUNNING_M)
            listed = p.bulk
            v = head(listed)
            if v < 0:
                listed = p.inactive
                v = head(listed)
            if v >= 0:
                remove(listed, v)
                self.startcore(v)
        self.spin_unlock()
        if v >= 0:
            self.s.interrupt(STARTS + v)

    def schedules(self) -> None:
        """The core scheduler of its own: whenever a process may be runnable, it is given a core."""
        while True:
            self.s.rest(RUNNABLE)
            self.give_core()

    def startcore(self, v: int) -> None:
        """A vcore has a core: online, mapped, and promises to look at its mailbox. With the lock held."""
        p = self.p
        vcpd = p.vcpd[v]
        vcpd.flags.keep_bits(~VC_PREEMPTED)
        vcpd.flags.set_bits(VC_CAN_RCV_MSG)
        vcpd.notif_disabled.store(1)
        vcpd.mapped.store(1)
        insert_head(p.online, v)
        self.add_vcores(1)

    def add_vcores(self, n: int) -> int:
        """num_vcores, with the lock held; what it is now."""
        now = self.p.num_vcores.load() + n
        self.p.num_vcores.store(now)
        return now

    def proc_yield(self, v: int) -> bool:
        """A vcore gives its core up. False: it may not, something is pending."""
        p = self.p
        vcpd = p.vcpd[v]
        self.spin_lock()
        if vcpd.notif_pending.load():
            self.spin_unlock()
            return False
        remove(p.online, v)
        self.s.mb()  # off the list before the look at pending: pairs with `spam_list_member`
        if vcpd.notif_pending.load():
            insert_head(p.online, v)
            self.spin_unlock()
            return False
        insert_head(p.inactive, v)
        vcpd.mapped.store(0)
        if self.add_vcores(-1) == 0 and p.state.load() != DYING:
            p.state.store(WAITING)
        self.spin_unlock()
        return True

    def proc_yield_s(self) -> bool:
        """A single-core process goes to sleep."""
        p = self.p
        self.spin_lock()
        p.state.store(WAITING)
        self.s.mb()  # WAITING before the look at pending: pairs with `send_event`
        if p.vcpd[0].notif_pending.load():
            p.state.store(RUNNING_S)
            self.spin_unlock()
            return False
        p.vcpd[0].mapped.store(0)
        self.spin_unlock()
        return True

    def change_to_m(self, *others: int) -> None:
        """A single-core process becomes a many-core one: vcore 0 goes on, and the others are given cores."""
        p = self.p
        self.spin_lock()
        p.mcp.store(1)
        p.state.store(RUNNING_M)
        vcpd = p.vcpd[0]
        vcpd.flags.set_bits(VC_CAN_RCV_MSG)
        vcpd.mapped.store(1)
        insert_head(p.online, 0)
        self.add_vcores(1)
        i = 0
        while i < len(others):
            remove(p.inactive, others[i])
            self.startcore(others[i])
            i += 1
        self.spin_unlock()
        i = 0
        while i < len(others):
            self.s.interrupt(STARTS + others[i])
            i += 1

    def preempt_core(self, v: int) -> None:
        """Takes a vcore's core. Whoever calls it sends the news."""
        p = self.p
        self.spin_lock()
        p.vcpd[v].flags.set_bits(VC_K_LOCK | VC_PREEMPTED)
        remove(p.online, v)
        p.vcpd[v].mapped.store(0)
        insert_head(p.inactive, v)
        if self.add_vcores(-1) == 0:
            p.state.store(RUNNABLE_M)
        p.vcpd[v].flags.keep_bits(~VC_K_LOCK)
        self.spin_unlock()
        self.s.interrupt(RUNNABLE)

    def change_vcore(self, v: int, to: int) -> bool:
        """A vcore gives its core to another one, which lost its own in vcore context; it looks preempted itself from then
        on. False: that one runs again."""
        p = self.p
        self.spin_lock()
        if p.vcpd[to].mapped.load():
            self.spin_unlock()
            return False
        p.vcpd[v].flags.set_bits(VC_PREEMPTED)
        remove(p.online, v)
        p.vcpd[v].mapped.store(0)
        insert_head(p.inactive, v)
        self.add_vcores(-1)
        remove(p.inactive, to)
        self.startcore(to)
        self.spin_unlock()
        return True

    def destroy(self) -> None:
        """The process dies."""
        self.spin_lock()
        self.p.state.store(DYING)
        self.spin_unlock()
