"""Looking a while longer: what a vcore with nothing to do watches before it yields.

Plain loads of words that change when there is news: `notif_pending`, the stop word, and for each queue that this vcore
answers for the word that its cursor ended at, and those of the unfinished slots before it. No order is needed here:
whoever finds a change goes and looks properly.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..kern.const import MB_CHECK_BITS, NO_VCORE, PI_STOP, READY, SL_WORD, VCPD_NOTIF_PENDING, WATCH_MAX
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
    """Fills in the watched words of the active queues. How many, or NO_VCORE if there is news already."""
    n = 0
    for queue in vc.active:
        cur = cursor_of(vc, queue)
        if cur is None:
            continue
        bits = mbox_at(vc.s, cur.mbox) + MB_CHECK_BITS
        if news(vc.s, cur) or ld32(vc.s.mem, bits) != 0:
            return NO_VCORE
        if n + 2 <= WATCH_MAX:
            watches.at[n] = cur.watch_at
            watches.word[n] = cur.watch_word
            watches.at[n + 1] = bits
            watches.word[n + 1] = 0
            n = n + 2
        # A slot passed over becomes READY without a change in the word that the cursor ended at: it is watched itself.
        k = 0
        while k < cur.nskipped and n < WATCH_MAX:
            at = slot_at(vc.s, cur.skipped[k]) + SL_WORD
            w = lda64(vc.s.mem, at)
            if (w & 15) == READY:
                return NO_VCORE
            watches.at[n] = at
            watches.word[n] = w
            n = n + 1
            k = k + 1
    return n
