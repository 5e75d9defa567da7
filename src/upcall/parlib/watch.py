"""Finding vcores that sit on pending mail: the eyes of whoever has the watcher's role.

A vcore that runs moves: its word in the vcoremap changes, or what it has handled, how often it slept or was interrupted.
One of which nothing has changed for `preempt_after_ms` is stopped, or long in one handler, or has nothing to do; which of
these, matters only while mail waits that it might have taken: then it is preempted (`preempt_vcore`), which costs one that
is well no more than coming back.

The watcher looks every so often as long as any vcore runs or is AWAY, and sleeps when none does.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..kern.const import (
        EVQ_MBOX,
        MAX_VCORES,
        NO_VCORE,
        PI_WATCH,
        VC_AWAY,
        VC_OFFLINE,
        VCPD_HANDLED,
        VCPD_NOTIF_PENDING,
        VCPD_NOTIFS,
        VCPD_PARKS,
    )
    from ..kern.event import get_vcpd_mbox_priv, get_vcpd_mbox_pub
    from ..kern.layout import Seg, evq_at, map_at, vcpd_at
    from ..kern.proc import is_running, num_vcores, startcore, vc_state
    from ..machine.door import ld32, ld64, lda64, mb, str32, u64
    from .mbox import has_bits, has_ready
    from .recover import num_queues


class Watch:
    """What a watcher has seen of each vcore: its word, how much it has done, and since when (ns) neither has changed."""

    def __init__(self):
        if not cython.compiled:
            self.word = [0] * MAX_VCORES
            self.done = [0] * MAX_VCORES
            self.since = [0] * MAX_VCORES


def still_for(s: Seg, seen: Watch, vcoreid: int, now: int) -> int:
    """For how long (ns) nothing has changed about a vcore, as far as this watcher has looked."""
    vcpd = vcpd_at(s, vcoreid)
    w = lda64(s.mem, map_at(s, vcoreid))
    done = ld64(s.mem, vcpd + VCPD_HANDLED) + ld64(s.mem, vcpd + VCPD_PARKS) + ld64(s.mem, vcpd + VCPD_NOTIFS)
    done = u64(done)
    if w != seen.word[vcoreid] or done != seen.done[vcoreid]:
        seen.word[vcoreid] = w
        seen.done[vcoreid] = done
        seen.since[vcoreid] = now
        return 0
    return now - seen.since[vcoreid]


def mail_waits(s: Seg, vcoreid: int) -> bool:
    """Whether there is mail that this vcore might have taken: its own, or in a queue."""
    pub = get_vcpd_mbox_pub(s, vcoreid)
    priv = get_vcpd_mbox_priv(s, vcoreid)
    if has_ready(s, pub) or has_bits(s, pub) or has_ready(s, priv) or has_bits(s, priv):
        return True
    n = num_queues(s)
    queue = 0
    while queue < n:
        own = ld32(s.mem, evq_at(s, queue) + EVQ_MBOX)
        if own != 0 and own <= s.nr_mboxes and (has_ready(s, own - 1) or has_bits(s, own - 1)):
            return True
        queue = queue + 1
    return False


def next_still(s: Seg, seen: Watch, first: int, now: int, after: int) -> int:
    """The first vcore, from `first` on, that runs or is AWAY, and has not moved for `after` ns while mail waits; or
    NO_VCORE. Also notes what has moved: to be called until it says NO_VCORE."""
    n = num_vcores(s)
    v = first
    while v < n:
        still = still_for(s, seen, v, now)
        state = vc_state(lda64(s.mem, map_at(s, v)))
        if (is_running(state) or state == VC_AWAY) and still >= after and mail_waits(s, v):
            return v
        v = v + 1
    return NO_VCORE


def somebody_moves(s: Seg, seen: Watch, now: int, after: int) -> bool:
    """Whether some vcore could take over: it sleeps and can be given a core, or runs and has moved lately."""
    n = num_vcores(s)
    v = 0
    while v < n:
        state = vc_state(lda64(s.mem, map_at(s, v)))
        if state == VC_OFFLINE or (is_running(state) and now - seen.since[v] < after):
            return True
        v = v + 1
    return False


def anything_to_watch(s: Seg) -> bool:
    """Whether there is a vcore that runs, or one that is AWAY and may promise and stop again; or one that has left with
    `notif_pending` set: it was stopped between its word and its last look (`proc_yield`), and whoever sent had still seen it
    run. That one is given a core."""
    n = num_vcores(s)
    v = 0
    found = False
    while v < n:
        # One read of the word: with two, a vcore could be neither here nor there, on its way back.
        state = vc_state(lda64(s.mem, map_at(s, v)))
        if is_running(state) or state == VC_AWAY:
            found = True
        elif state == VC_OFFLINE and ld32(s.mem, vcpd_at(s, v) + VCPD_NOTIF_PENDING) != 0:
            startcore(s, v)
            found = True
        v = v + 1
    return found


def watch_sleeps(s: Seg) -> bool:
    """The watcher says that it sleeps. False if there is something to watch: it must not."""
    at = s.procinfo + PI_WATCH
    str32(s.mem, at, 1)
    # PI_WATCH before the look at the vcores: pairs with `now_running`, which follows a change of a vcore's word, and reads
    # PI_WATCH. Without it both could look too early, and a vcore run with nobody watching.
    mb()
    if not anything_to_watch(s):
        return True
    str32(s.mem, at, 0)
    return False


def watch_wakes(s: Seg) -> None:
    """The watcher looks by itself again."""
    str32(s.mem, s.procinfo + PI_WATCH, 0)
