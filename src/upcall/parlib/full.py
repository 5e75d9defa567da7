"""Being full: a vcore that has as many messages in the hands of tasks as it may have.

It takes nothing more from queues whose handlers are tasks, and says so: VC_FULL. What it is told of such a queue it passes
on, as it got it, to a vcore that is not full; whoever gets it is awake, or given a core. If there is none, all of them full
or without a host that moves, the indirection is done with, and `alert_pending` goes on saying that somebody has been told.
That is true of whoever is the first to be able to take something: it looks at every queue of which somebody has been told,
whether or not something waits in it (`look_everywhere`, when a task has ended and when a vcore starts), and so takes back
what that flag says before it sleeps.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..kern.const import ALERT_NONE, ALERT_POLLED, EV_EVENT, EVQ_ALERT, OK, VC_FULL, VCPD_FLAGS
    from ..kern.event import spam_vcore
    from ..kern.layout import Seg, evq_at, map_at, vcpd_at
    from ..kern.proc import can_start, num_vcores, startcore, vc_state, vcore_will_look
    from ..machine.door import ld32, lda64, wrmb


def is_told(s: Seg, queue: int) -> bool:
    """Whether somebody has been told to look at a queue, or is being told, and has not answered."""
    alert = lda64(s.mem, evq_at(s, queue) + EVQ_ALERT)
    return alert != ALERT_NONE and (alert & 15) != ALERT_POLLED


def has_looker(s: Seg, mbox: int) -> bool:
    """Whether a mailbox is that of another vcore, which will look at it by itself. A full vcore that has been told to take
    its mail leaves the rest to it: what it passes on might come back from there, again and again."""
    v = mbox // 2
    return mbox < 2 * s.max_vcores and v != s.vcoreid and vcore_will_look(s, v)


def pass_on(s: Seg, vcoreid: int, queue: int, ev_flags: int) -> None:
    """Passes on what a full vcore was told: to look at a queue, or, with EVENT_NOMSG, at every one."""
    n = num_vcores(s)
    v = 0
    while v < n:
        # The message in the queue, READY before we were told, before these looks: pairs with `no_longer_full`, which takes
        # VC_FULL back (a full fence) and then looks at the queues, and with a host that says that it runs, fences and looks
        # (`vcore_entry`). Whoever is passed over here sees the message, or that somebody was told of it.
        if v != vcoreid and can_start(vc_state(lda64(s.mem, map_at(s, v)))):
            if (ld32(s.mem, vcpd_at(s, v) + VCPD_FLAGS) & VC_FULL) == 0:
                s.indir.ev_type = EV_EVENT
                s.indir.arg3 = queue
                s.why = spam_vcore(s, v, s.indir, ev_flags)
                wrmb()  # post + pending before the vcoremap: pairs with the fence in `proc_yield`
                if s.why == OK and startcore(s, v):
                    return
        v = v + 1
