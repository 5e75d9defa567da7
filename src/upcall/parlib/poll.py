"""A vcore whose host runs an event loop: it sleeps in the loop's poll, and its handlers go on as tasks.

To the protocol such a vcore is one like any other: ONLINE while it looks, OFFLINE while it sleeps, and `vcore_yield` is the
way from one to the other, with all its looks. What differs is what wakes it. A futex wakes nobody in a poll, so its flags
say VC_IN_POLL, and who gives it a core writes a byte into its FIFO, which the loop watches: level-triggered, so a byte that
comes before the poll ends it at once. The word in the vcoremap tells who has to: one sender takes it from OFFLINE to
STARTING and, the byte being there, to STARTED; those who find STARTED, or a queue whose `alert_pending` is DONE, write none;
those who find STARTING do, since its giver may be dead. A loop that is awake is ONLINE, and gets none.

The byte says only "awake", so a loop may wake for anything else too (a timer, a socket, a byte that came late) and take its
core by itself (`come_back`).

Tasks hold their messages TAKEN. A vcore that has as many as it may is *full* (`full`): it takes nothing more from queues
whose handlers go on as tasks, does not answer for them, and passes on what it is told of them.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..kern.const import (
        VC_FULL,
        VC_IN_POLL,
        VC_NOHOST,
        VC_OFFLINE,
        VC_STARTING,
        VCPD_BIT,
        VCPD_FLAGS,
        VCPD_HOST,
        VCPD_NOTIF_PENDING,
    )
    from ..kern.layout import map_at, vcpd_at
    from ..kern.proc import vc_next, vc_state
    from ..machine.door import cas64, fand32, for32, ld64, lda64, mb, st32, st64, u64
    from .full import pass_on
    from .mbox import news, tell_drainers
    from .recover import restore_bit
    from .vcore import VCore, cursor_of, look_everywhere, stop_polling, vcore_entry


def sleep_in_poll(vc: VCore) -> None:
    """From now on this vcore sleeps in a poll. Once, before it first sleeps: this comes before its word says OFFLINE;
    pairs with the look in `startcore`."""
    for32(vc.s.mem, vcpd_at(vc.s, vc.vcoreid) + VCPD_FLAGS, VC_IN_POLL)


def come_back(vc: VCore) -> bool:
    """Out of the poll, whatever ended it: the vcore has a core and looks again. False if its core was taken, and it has to
    wait until it is given one again."""
    s = vc.s
    at = map_at(s, vc.vcoreid)
    w = lda64(s.mem, at)
    # If this fails somebody has just given it a core: then `vcore_entry` takes that.
    if vc_state(w) == VC_OFFLINE:
        cas64(s.mem, at, w, vc_next(w, VC_STARTING, s.me))
    if not vcore_entry(vc):
        if vc_state(lda64(s.mem, at)) != VC_NOHOST:
            return False
        vc.leaving = True  # somebody says that this host is dead: another may be there already
    return True


def now_full(vc: VCore) -> None:
    """So many tasks run as may: stops answering for queues whose handlers are tasks. What waits in them is others' work, if
    there is anybody."""
    s = vc.s
    vc.full = True
    vc.enough = True
    for32(s.mem, vcpd_at(s, vc.vcoreid) + VCPD_FLAGS, VC_FULL)
    for queue in vc.active:
        if queue in vc.tasks:
            stop_polling(vc, queue)
    # No longer answering, then the look: pairs with the exchange to READY, as in `poll_queue`. Without it a message could
    # lie there whose sender has told nobody, with a vcore asleep that might take it.
    mb()
    for queue in vc.active:
        if queue in vc.tasks:
            cur = cursor_of(vc, queue)
            if cur is not None and news(s, cur):
                pass_on(s, vc.vcoreid, queue, 0)


def no_longer_full(vc: VCore) -> None:
    """A task has ended: this vcore looks at all queues again, whoever was told of them meanwhile."""
    s = vc.s
    vcpd = vcpd_at(s, vc.vcoreid)
    vc.full = False
    if ld64(s.mem, vcpd + VCPD_HOST) == s.me:  # else we have left, and it may be another's
        # Not full, then the look (a read-modify-write is a full fence): pairs with `pass_on`.
        fand32(s.mem, vcpd + VCPD_FLAGS, ~u64(VC_FULL))
    look_everywhere(vc)


def bit_done(vc: VCore, again: bool) -> None:
    """The task that had a bit in hand has ended; `again`: the bit is set once more, since it was cancelled. The bits that
    waited behind it are looked at next."""
    s = vc.s
    vcpd = vcpd_at(s, vc.vcoreid)
    vc.bit_task = False
    if ld64(s.mem, vcpd + VCPD_HOST) == s.me:  # else we have left, and given it back: the note may be another's
        if again:
            restore_bit(s, vc.vcoreid)
        # Both relaxed: the first as in `take_bit`; the second is for ourselves, who look at our own mail next.
        st64(s.mem, vcpd + VCPD_BIT, 0)
        st32(s.mem, vcpd + VCPD_NOTIF_PENDING, 1)
        look_everywhere(vc)
    tell_drainers(s)


def give_bit_back(vc: VCore) -> None:
    """The host leaves while a task has a bit in hand: the bit is set again, for others. The note of it is the vcore's, not
    the host's: the next host's bit would take its place, and our death then the bit."""
    if vc.bit_task:
        restore_bit(vc.s, vc.vcoreid)
