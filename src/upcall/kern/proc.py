"""The process: its state, its vcores, who runs; waking, yielding, preempting. The seed's kernel, run by whoever sends.

Each vcore has one word in the vcoremap, (state, sequence, name), changed by compare-and-swap only. The seed's three lists
are these words read as lists: online_vcs are the vcores whose word says ONLINE (or that a core is given to), and so on.
A list that is a view cannot be left half-linked by a death, so sending needs no lock and waits for nobody; the price, a
walk over the words to find a list's head, is eight vcores a cache line.

    NOHOST   -> OFFLINE    its host attaches          OFFLINE  -> NOHOST    its host detaches, or has died
    OFFLINE  -> STARTING   somebody gives it a core   STARTING -> STARTED   somebody has issued the wake
    STARTING, STARTED -> ONLINE   its host runs       ONLINE   -> OFFLINE   its host yields
    ONLINE   -> PREEMPTED, BULK   its core is taken   PREEMPTED, BULK -> STARTING   it gets one back
    STARTED, ONLINE -> AWAY       its host does not move   AWAY -> ONLINE   its host moves again

The low half of the word, state and sequence, is the futex word that the host sleeps on; every change alters it, so a
wake cannot be missed: `futex_wait` returns at once if the word is not the one that the host put there. STARTING is
*doing*: the giver may be killed or stopped before the wake, so whoever finds it issues the wake too. STARTED is *done*.

AWAY is for a host that is alive and does not move: stopped, or long in one handler while mail waits. It cannot be given
a core, since it would not take it; only the host itself comes back, when it moves again.

The process's state (WAITING, RUNNING_M, ...) is one more word, (state, epoch). It summarises the vcoremap and is always
written after it; a vcore that starts or a sender that gives a core writes RUNNING with a new epoch, a yielder that sees no
other vcore running writes WAITING over exactly the word that it read before it looked. Nobody relies on it to decide that
a vcore will look at its mail: that is decided by the vcoremap alone.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..machine.door import (
        cas32,
        cas64,
        fand32,
        for32,
        futex_wake,
        interrupt,
        ld32,
        ld64,
        lda64,
        low32,
        mb,
        rmb,
        str32,
        u64,
    )
    from .const import (
        AS_SYSCALLS,
        AS_WAKES,
        NO_VCORE,
        P_CREATED,
        P_DYING,
        P_NEW,
        P_RUNNABLE_M,
        P_RUNNING_M,
        P_RUNNING_S,
        P_WAITING,
        PI_CORES,
        PI_LOCK,
        PI_NUM_VCORES,
        PI_STATE,
        PI_WANT_ROOM,
        PI_WATCH,
        VC_AWAY,
        VC_BULK,
        VC_CAN_RCV_MSG,
        VC_IN_POLL,
        VC_K_LOCK,
        VC_LONG_HANDLER,
        VC_NOHOST,
        VC_OFFLINE,
        VC_ONLINE,
        VC_PREEMPTED,
        VC_PREEMPTED_FLAG,
        VC_SEQ_MASK,
        VC_STARTED,
        VC_STARTING,
        VCPD_FLAGS,
        VCPD_HOST,
        VCPD_NOTIF_DISABLED,
        VCPD_NOTIF_PENDING,
        WALK_MAX,
    )
    from .layout import Seg, count, map_at, vcpd_at
    from .pages import name_is_dead


def vc_state(w: int) -> int:
    """The state in a vcoremap word."""
    return w & 15


def vc_word(state: int, seq: int, name: int) -> int:
    return state | ((seq & VC_SEQ_MASK) << 4) | (name << 32)


def vc_next(w: int, state: int, name: int) -> int:
    """The word that follows `w`: another state, the next sequence number."""
    return vc_word(state, ((w >> 4) & VC_SEQ_MASK) + 1, name)


def num_vcores(s: Seg) -> int:
    """How many vcores the process has now; never more than the geometry's."""
    n = ld64(s.mem, s.procinfo + PI_NUM_VCORES)
    if n > s.max_vcores:
        return s.max_vcores
    return n


def is_running(state: int) -> bool:
    """Whether a vcore in this state looks at its mail before it sleeps: it runs, or has been given a core."""
    return state == VC_ONLINE or state == VC_STARTED or state == VC_STARTING


def vcore_is_mapped(s: Seg, vcoreid: int) -> bool:
    """Unlocked peek at the vcoremap, as in the seed."""
    return is_running(vc_state(lda64(s.mem, map_at(s, vcoreid))))


def vcore_will_look(s: Seg, vcoreid: int) -> bool:
    """Whether the vcore looks at its mail before it sleeps: it runs, or is sure to be woken. One that a core is being given
    to (STARTING) is woken here: its giver may never come to it."""
    state = vc_state(lda64(s.mem, map_at(s, vcoreid)))
    if state == VC_STARTING:
        return startcore(s, vcoreid)
    return state == VC_ONLINE or state == VC_STARTED


def list_first(s: Seg, state: int, after: int) -> int:
    """The head of a list: the first vcore from `after` on in this state (ONLINE stands for all that run), or NO_VCORE."""
    n = num_vcores(s)
    v = after
    while v < n:
        found = vc_state(lda64(s.mem, map_at(s, v)))
        if found == state or (state == VC_ONLINE and is_running(found)):
            return v
        v = v + 1
    return NO_VCORE


def nr_running(s: Seg) -> int:
    """How many vcores run."""
    n = num_vcores(s)
    v = 0
    running = 0
    while v < n:
        if vcore_is_mapped(s, v):
            running = running + 1
        v = v + 1
    return running


def proc_state(s: Seg) -> int:
    """The process's state: one of the P_ numbers."""
    return lda64(s.mem, s.procinfo + PI_STATE) & 0xFF


def is_mcp(s: Seg) -> bool:
    """Many-core process: it has, or may get, more than one vcore."""
    return num_vcores(s) != 1


def set_proc_state(s: Seg, state: int) -> None:
    """Writes a state under a new epoch. DYING is never left this way."""
    at = s.procinfo + PI_STATE
    tries = 0
    while tries < WALK_MAX:
        w = lda64(s.mem, at)
        if (w & 0xFF) == P_DYING:
            return
        if cas64(s.mem, at, w, state | ((w >> 8) + 1) << 8):
            return
        tries = tries + 1


def running_state(s: Seg) -> int:
    return P_RUNNING_M if is_mcp(s) else P_RUNNING_S


def now_running(s: Seg) -> None:
    """A vcore is about to run: says so in the process's state, and to the watcher, if that sleeps. While its word says
    STARTING, and before it says STARTED or ONLINE: these two are relied on, so whoever stops for ever in here must not have
    written them. Whoever finds STARTING does this too."""
    set_proc_state(s, running_state(s))
    # The vcore's word before the look at PI_WATCH (it was changed to STARTING by compare-and-swap): pairs with
    # `watch_sleeps`, which says that it sleeps, fences, and reads the words. Without it a vcore could run, and stop for
    # ever, with nobody watching. The word is left to the watcher: if we die here, the next one tells it.
    if ld32(s.mem, s.procinfo + PI_WATCH) != 0:
        count(s, AS_SYSCALLS, interrupt(s.world, s.max_vcores))


def can_start(state: int) -> bool:
    """Whether a core can be given to a vcore in this state: somebody hosts it, and moves."""
    return state != VC_NOHOST and state != VC_AWAY


def startcore(s: Seg, vcoreid: int) -> bool:
    """Gives a core to a vcore that has a host. True if the vcore runs or will run: it looks at its mailboxes."""
    at = map_at(s, vcoreid)
    tries = 0
    while tries < WALK_MAX:
        tries = tries + 1
        w = lda64(s.mem, at)
        state = vc_state(w)
        if state == VC_ONLINE or state == VC_STARTED:
            return True
        if not can_start(state):
            return False
        if state != VC_STARTING:
            mine = vc_next(w, VC_STARTING, s.me)
            if not cas64(s.mem, at, w, mine):
                continue
            w = mine
        # Here the word says STARTING, by us or by somebody who may never come to the wake: do it, then say that it is
        # done. The host may have come online by itself in between; then the last step fails, and nothing is lost.
        # How its host sleeps it has said before its word was first OFFLINE: pairs with `sleep_in_poll`. We have read the
        # word, by compare-and-swap or load, before this look; else one in a poll might be woken by a futex only.
        polls = (ld32(s.mem, vcpd_at(s, vcoreid) + VCPD_FLAGS) & VC_IN_POLL) != 0
        if polls:
            woken = interrupt(s.world, vcoreid)
            count(s, AS_SYSCALLS, woken)
        else:
            woken = futex_wake(s.mem, at, 1)
            count(s, AS_SYSCALLS, 1)
        count(s, AS_WAKES, 1)
        if woken == 0:
            if host_is_dead(s, vcoreid):
                # Nobody slept there: on its way to sleep, or dead and not yet found so. We are the first to find it.
                unhost_vcore(s, vcoreid)
                return False
            if polls:
                return False  # its FIFO cannot be opened by us: STARTING stays, which nobody relies on
        now_running(s)
        cas64(s.mem, at, w, vc_next(w, VC_STARTED, w >> 32))
        return True
    return False


def may_start_more(s: Seg) -> bool:
    """Whether the process may have one more core: `cores` is the most it gets."""
    cores = ld64(s.mem, s.procinfo + PI_CORES)
    return cores == 0 or nr_running(s) < cores


def start_one_more(s: Seg, first: int) -> bool:
    """The core scheduler: one more vcore, bulk-preempted ones first, then inactive ones, from `first` on. True if one
    was started."""
    v = list_first(s, VC_STARTING, 0)
    if v != NO_VCORE and startcore(s, v):
        return True  # somebody was about to, and may be dead: it counts among those that run
    if not may_start_more(s):
        return False
    round = 0
    while round < 3:
        state = VC_BULK
        if round == 1:
            state = VC_PREEMPTED
        if round == 2:
            state = VC_OFFLINE
        v = list_first(s, state, first)
        if v == NO_VCORE:
            v = list_first(s, state, 0)
        if v != NO_VCORE and startcore(s, v):
            return True
        round = round + 1
    return False


def proc_wakeup(s: Seg) -> None:
    """Only a process that is WAITING (or new) becomes RUNNABLE; then it gets a core."""
    state = proc_state(s)
    if state != P_WAITING and state != P_CREATED and state != P_NEW:
        return
    start_one_more(s, 0)


def proc_notify(s: Seg, vcoreid: int) -> None:
    """The interrupt: for a parked host a core, for one in uthread context a byte in its FIFO, for one in vcore context
    nothing, since it looks at `notif_pending` before it leaves."""
    vcpd = vcpd_at(s, vcoreid)
    str32(s.mem, vcpd + VCPD_NOTIF_PENDING, 1)
    # Pending before the look at `notif_disabled`: pairs with `enable_notifs`, which clears `notif_disabled` and then
    # reads pending. Without it both could look too early, and the vcore would run on, uninterrupted, with mail.
    mb()
    if ld32(s.mem, vcpd + VCPD_NOTIF_DISABLED) == 0:
        if vc_state(lda64(s.mem, map_at(s, vcoreid))) == VC_ONLINE:
            count(s, AS_SYSCALLS, interrupt(s.world, vcoreid))


def tell_holders(s: Seg) -> None:
    """Whoever has made room in the pool or the arena tells every vcore, if one of them holds a message that there was no
    room to make a dead letter (it looks when it has nothing else to do). Room, a fence (in `tell_room`), then this look:
    pairs with the vcore, which raises PI_WANT_ROOM, a full fence, and tries once more."""
    at = s.procinfo + PI_WANT_ROOM
    wanted = ld32(s.mem, at)
    if wanted == 0:
        return
    n = num_vcores(s)
    v = 0
    while v < n:
        proc_notify(s, v)
        startcore(s, v)
        v = v + 1
    # The deed before the mark is taken back: died in between, the next one tells them again. If somebody has raised it
    # meanwhile it stays.
    cas32(s.mem, at, wanted, 0)


def proc_yield(s: Seg, vcoreid: int) -> bool:
    """The kernel's half of yielding. True if the core is gone and the host must sleep on its vcoremap word; False if it
    must go on: there is news, or somebody has just given it a core."""
    at = map_at(s, vcoreid)
    w = lda64(s.mem, at)
    state = vc_state(w)
    if ld32(s.mem, vcpd_at(s, vcoreid) + VCPD_NOTIF_PENDING) != 0:
        return False
    if state == VC_ONLINE:
        offline = vc_next(w, VC_OFFLINE, s.me)
        if not cas64(s.mem, at, w, offline):
            return False
        # Off the list, by compare-and-swap, before the last look at `notif_pending`: pairs with `spam_list_member`, which
        # sets pending, fences, and reads the list again. One of the two sees the other.
        if ld32(s.mem, vcpd_at(s, vcoreid) + VCPD_NOTIF_PENDING) != 0:
            # Another yielder may have found nobody running meanwhile, and the watcher too: as one that is given a core.
            if cas64(s.mem, at, offline, vc_next(offline, VC_STARTING, s.me)):
                vcore_online(s, vcoreid)
            return False
    elif is_running(state):
        # A core was given to us while we ran: we run. Left as it is, the word would refuse every later yield.
        vcore_online(s, vcoreid)
        return False
    elif state == VC_AWAY:
        return False  # taken for one that does not move: back first, since nobody can give us a core
    proc_wait(s)
    return True


def proc_wait(s: Seg) -> None:
    """WAITING, if no vcore runs. The state is read before the vcores are: whoever starts one afterwards raises the epoch
    and this write fails."""
    at = s.procinfo + PI_STATE
    w = lda64(s.mem, at)
    state = w & 0xFF
    if state == P_DYING or state == P_WAITING:
        return
    rmb()  # the state before the vcoremap: pairs with `startcore`, which writes them the other way round
    if list_first(s, VC_ONLINE, 0) == NO_VCORE:
        cas64(s.mem, at, w, P_WAITING | ((w >> 8) + 1) << 8)


def vcore_online(s: Seg, vcoreid: int) -> bool:
    """The host runs: its word says so, and the process is running. False if its core was taken meanwhile."""
    at = map_at(s, vcoreid)
    tries = 0
    while tries < WALK_MAX:
        tries = tries + 1
        w = lda64(s.mem, at)
        state = vc_state(w)
        if state == VC_ONLINE:
            return True
        if state == VC_AWAY:
            cas64(s.mem, at, w, vc_next(w, VC_STARTING, s.me))
            continue
        if state != VC_STARTING and state != VC_STARTED:
            return False
        now_running(s)
        if cas64(s.mem, at, w, vc_next(w, VC_ONLINE, s.me)):
            return True
    return False


def host_is_dead(s: Seg, vcoreid: int) -> bool:
    """Whether the vcore names a host, and that one is gone. Asks the kernel."""
    name = ld64(s.mem, vcpd_at(s, vcoreid) + VCPD_HOST)
    return name != 0 and name_is_dead(s, name)


def unhost_vcore(s: Seg, vcoreid: int) -> None:
    """The host leaves, or is dead: nobody hosts this vcore. Another living host's vcore is left alone."""
    host = vcpd_at(s, vcoreid) + VCPD_HOST
    at = map_at(s, vcoreid)
    tries = 0
    while tries < WALK_MAX:
        tries = tries + 1
        w = lda64(s.mem, at)
        rmb()  # the word before the name: pairs with `host_vcore`, which writes the name first; then the word changes
        old = ld64(s.mem, host)
        if old != 0 and old != s.me and not name_is_dead(s, old):
            return
        if vc_state(w) == VC_NOHOST or cas64(s.mem, at, w, vc_next(w, VC_NOHOST, 0)):
            cas64(s.mem, host, old, 0)
            break
    fand32(s.mem, vcpd_at(s, vcoreid) + VCPD_FLAGS, ~u64(VC_CAN_RCV_MSG | VC_LONG_HANDLER))
    proc_wait(s)


def take_core(s: Seg, vcoreid: int, state: int) -> bool:
    """ONLINE -> PREEMPTED, BULK or AWAY. The flags say K_LOCK while they and the vcoremap disagree."""
    at = map_at(s, vcoreid)
    flags = vcpd_at(s, vcoreid) + VCPD_FLAGS
    w = lda64(s.mem, at)
    if not is_running(vc_state(w)):
        return False
    for32(s.mem, flags, VC_K_LOCK | VC_PREEMPTED_FLAG)
    taken = cas64(s.mem, at, w, vc_next(w, state, w >> 32))
    if not taken:
        fand32(s.mem, flags, ~u64(VC_PREEMPTED_FLAG))
    fand32(s.mem, flags, ~u64(VC_K_LOCK))
    return taken


def proc_preempt_core(s: Seg, vcoreid: int) -> int:
    """Takes one vcore's core. True if it had one; the caller tells another vcore (EV_VCORE_PREEMPT)."""
    taken = take_core(s, vcoreid, VC_PREEMPTED)
    if taken:
        proc_wait(s)
    return taken


def proc_preempt_all(s: Seg) -> int:
    """Takes all cores at once; returns how many. Nobody is left to be told: they come back together."""
    n = num_vcores(s)
    v = 0
    taken = 0
    while v < n:
        if take_core(s, v, VC_BULK):
            taken = taken + 1
        v = v + 1
    if taken:
        set_proc_state(s, P_RUNNABLE_M)
    return taken


def proc_lock(s: Seg) -> bool:
    """Takes the lock for changes of more than one word (number of vcores, tables), or takes it over from an owner that
    is gone. Senders never need it. True if it is held now; False if a living owner has it."""
    at = s.procinfo + PI_LOCK
    w = lda64(s.mem, at)
    owner = low32(w)
    if owner == s.me:
        return True
    if owner != 0 and not name_is_dead(s, owner):
        return False
    # The epoch rises with every owner: a former one, late, fails in `proc_unlock` and in `lock_epoch`.
    return cas64(s.mem, at, w, s.me | ((w >> 32) + 1) << 32)


def proc_unlock(s: Seg) -> None:
    """Gives the lock back if it is still ours."""
    at = s.procinfo + PI_LOCK
    w = lda64(s.mem, at)
    if low32(w) == s.me:
        cas64(s.mem, at, w, (w >> 32) << 32)
