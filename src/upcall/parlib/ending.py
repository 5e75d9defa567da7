"""The end of a process: its vcores are told to stop, and when none is left somebody looks whether anything waits.

Senders may come at any time of it. What they send is kept for the next start, or they are told that the process is gone.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..kern.const import P_DYING, P_WAITING, PI_STATE, PI_STOP, VCPD_NOTIF_PENDING
    from ..kern.layout import Seg, vcpd_at
    from ..kern.proc import set_proc_state, startcore
    from ..machine.door import cas64, faa32, interrupt, lda64, st32
    from .mbox import has_bits, recover_mbox, waiting_in
    from .recover import mail_waits


def tell_to_stop(s: Seg, how: int) -> None:
    """Every vcore is to stop, STOP_DRAIN or STOP_NOW. The caller nudges each."""
    st32(s.mem, s.procinfo + PI_STOP, how)


def nudge(s: Seg, vcoreid: int) -> None:
    """Has a vcore look, asleep or in user code."""
    # PI_STOP before pending and the vcoremap, by a full fence: pairs with a host that goes to sleep, which takes itself off
    # its core by compare-and-swap, and then looks at PI_STOP (`Dispatcher.sleep`). Without it a vcore could sleep, untold.
    faa32(s.mem, vcpd_at(s, vcoreid) + VCPD_NOTIF_PENDING, 1)
    startcore(s, vcoreid)
    interrupt(s.world, vcoreid)


def something_waits(s: Seg) -> int:
    """How many mailboxes hold events that nobody has handled."""
    waiting = 0
    mbox = 0
    while mbox < s.nr_mboxes:
        if mbox < 2 * s.max_vcores:
            if mail_waits(s, mbox):
                waiting = waiting + 1
        elif waiting_in(s, mbox, 0) or has_bits(s, mbox):
            waiting = waiting + 1
        mbox = mbox + 1
    return waiting


def end_process(s: Seg) -> bool:
    """The end, when nobody hosts a vcore any more. True if nothing waits: the process is DYING, for good, and its segment
    may be removed. False: it is WAITING for its next start."""
    mbox = 0
    while mbox < s.nr_mboxes:
        recover_mbox(s, mbox)
        mbox = mbox + 1
    # DYING, by compare-and-swap, a full fence, before the look: pairs with `unless_gone`.
    set_proc_state(s, P_DYING)
    if something_waits(s) == 0:
        return True
    # Nobody else changes it while it says DYING.
    at = s.procinfo + PI_STATE
    w = lda64(s.mem, at)
    cas64(s.mem, at, w, P_WAITING | ((w >> 8) + 1) << 8)
    return False
