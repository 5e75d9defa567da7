"""Looking a while longer: what a vcore with nothing to do watches before it yields.

Plain loads of words that change when there is news: `notif_pending`, the stop word, and for each queue that this vcore
answers for the word that its cursor ended at, those of the unfinished slots before it, `check_bits`, and the word that says
that slots behind it became READY again. No order is needed here: whoever finds a change goes and looks properly. A vcore
that would have to watch more words than it can does not watch at all, but yields at once.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..kern.const import (
        MB_CHECK_BITS,
        MB_RESCAN,
        NO_VCORE,
        PI_STOP,
        READY,
        SL_WORD,
        VCPD_NOTIF_PENDING,
        WATCH_MAX,
    )
    from ..kern.layout import Seg, mbox_at, vcpd_at
    from ..kern.ucq import slot_at
    from ..machine.door import ld32, lda64, now_ns, pause
    from .mbox import news
    from .vcore import VCore, cursor_of


class Watches:
    """The words that a spinning vcore looks at."""

    def __init__(self):
        if not cython.compiled:
            self.at = [0] * WATCH_MAX
            self.word = [0] * WATCH_MAX


def spin(s: Seg, vcoreid: int, watches: Watches, n: int, deadline_ns: int) -> bool:
    """Looks at `notif_pending` and at `n` watched words for a bounded while. True if something changed."""
    if n > WATCH_MAX:
        return False
    pending = vcpd_at(s, vcoreid) + VCPD_NOTIF_PENDING
    rounds = 0
    while True:
        if ld32(s.mem, pending) != 0 or ld32(s.mem, s.procinfo + PI_STOP) != 0:
            return True
        k = 0
        while k < n:
            if lda64(s.mem, watches.at[k]) != watches.word[k]:
                return True
            k = k + 1
        rounds = rounds + 1
        if (rounds & 31) == 0 and now_ns() >= deadline_ns:
            return False
        pause()


def watch(vc: VCore, watches: Watches) -> int:
    """Fills in the watched words of the active queues. How many; NO_VCORE if there is news already; more than WATCH_MAX if
    they are too many to watch."""
    n = 0
    for queue in vc.active:
        cur = cursor_of(vc, queue)
        if cur is None:
            continue
        mbox = mbox_at(vc.s, cur.mbox)
        rescan = lda64(vc.s.mem, mbox + MB_RESCAN)  # before `news` compares it
        if news(vc.s, cur) or ld32(vc.s.mem, mbox + MB_CHECK_BITS) != 0:
            return NO_VCORE
        if n + 3 + cur.nskipped > WATCH_MAX:
            return WATCH_MAX + 1
        watches.at[n] = cur.watch_at
        watches.word[n] = cur.watch_word
        watches.at[n + 1] = mbox + MB_CHECK_BITS
        watches.word[n + 1] = 0
        # Slots behind it that are READY again: nobody is told of them while this vcore answers for the queue.
        watches.at[n + 2] = mbox + MB_RESCAN
        watches.word[n + 2] = rescan
        n = n + 3
        # A slot passed over becomes READY without a change in the word that the cursor ended at: it is watched itself.
        k = 0
        while k < cur.nskipped:
            at = slot_at(vc.s, cur.skipped[k]) + SL_WORD
            w = lda64(vc.s.mem, at)
            if (w & 15) == READY:
                return NO_VCORE
            watches.at[n] = at
            watches.word[n] = w
            n = n + 1
            k = k + 1
    return n
