"""Hosts that come and go: the first one, two at once, one that leaves in good order, one whose name's slot has another
owner, a recoverer that sees what a new host writes."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import DIED, USUAL, Process
from ..verdict import State
from .cases import case, variants
from .dying import restarter
from .properties import at_rest, bounded_duplicates, delivered, nothing_lost, usual

IPI = const.EVENT_IPI


def comes(p: Process, vcoreid: int, *, name: str = "", mortal: bool = False, own_host: bool = True) -> Any:
    """An actor that hosts a vcore if it can, from the start: attach, enter, work, sleep."""
    seg, s, parlib, host_vcore = p.attach(), p.s, p.parlib.vcore, p.parlib.recover.host_vcore
    vc = p.recorder(seg, vcoreid)
    vc.note = s.note

    def lives() -> None:
        if not host_vcore(seg, vcoreid):
            s.note("refused", vcoreid)
            return
        s.note("hosts", vcoreid)
        parlib.disable_notifs(vc)
        parlib.vcore_entry(vc)
        while True:
            if parlib.work(vc) == 0 and parlib.vcore_yield(vc):
                vc.sleep()

    if own_host:
        p.hosts[vcoreid] = seg
    s.actor(lives, name=name or f"vcore {vcoreid}", slot=seg.my_slot, mortal=mortal)
    return seg


def first_host(s: Scenario, *, flags: int = USUAL, own: bool = True, vcores: int = 2) -> None:
    """A message is sent to a process without hosts while the first one comes."""
    p = Process(s, vcores=vcores)
    p.queue(flags, own=own)
    comes(p, 0)
    p.sender("sender", 1)
    delivered(p, flags)


variants(
    first_host,
    ("G1", "G2"),
    {
        "usual": {},
        "alone": {"vcores": 1},
        "private": {"flags": IPI | const.EVENT_VCORE_PRIVATE, "own": False},
        "public": {"flags": IPI, "own": False},
        "spammed": {"flags": const.EVENT_SPAM_PUBLIC, "own": False},
    },
    preemptions=2,
)


def other_host(s: Scenario, *, flags: int, own: bool, vcore: int = 0) -> None:
    """Mail for a vcore that nobody hosts while another vcore comes: that one handles it, unless it is private."""
    p = Process(s, vcores=2)
    p.queue(flags, own=own, vcore=vcore)
    comes(p, 1)
    p.sender("sender", 1)
    delivered(p, flags)


variants(
    other_host,
    ("G1", "G2"),
    {"usual": {"flags": USUAL, "own": True}, "public": {"flags": IPI, "own": False},
     "spammed": {"flags": const.EVENT_SPAM_PUBLIC, "own": False}},
    preemptions=2,
)  # fmt: skip


@case("G4", "G7", "G11")
def two_hosts_for_one_vcore(s: Scenario) -> None:
    """Two want to host one vcore: one of them does."""
    p = Process(s)
    for name in ("one", "two"):
        seg = p.attach()
        s.actor(_hosts_only(p, seg), name=name, slot=seg.my_slot)

    @s.at_end
    def one_does(state: State) -> None:
        assert state.count("hosts") == 1, f"{state.count('hosts')} host the vcore"
        host = state.get(p.kern.layout.vcpd_at(p.at, 0) + const.VCPD_HOST)
        assert host == state.get(p.kern.layout.map_at(p.at, 0)) >> 32, "its word names another host than its record"


def _hosts_only(p: Process, seg: Any) -> Any:
    host, s = p.parlib.recover.host_vcore, p.s

    def hosts() -> None:
        if host(seg, 0):
            s.note("hosts")

    return hosts


@case("G4", "G11", deaths=1)
def host_dies_and_another_comes(s: Scenario) -> None:
    """A host dies at any step of its start, a recoverer takes the vcore from it, another host comes: it stays its."""
    p = Process(s)
    first, second, third = p.attach(), p.attach(), p.attach()
    s.actor(_hosts_only(p, first), name="first", slot=first.my_slot)
    unhost, host, dead = p.kern.proc.unhost_vcore, p.parlib.recover.host_vcore, p.kern.pages.name_is_dead

    def recovers() -> None:
        if dead(second, first.me):
            unhost(second, 0)

    def comes_next() -> None:
        if host(third, 0):
            s.note("second hosts")

    s.actor(recovers, name="recoverer", slot=second.my_slot, mortal=False)
    s.actor(comes_next, name="next", slot=third.my_slot, mortal=False)

    @s.at_end
    def hosted(state: State) -> None:
        word = state.get(p.kern.layout.map_at(p.at, 0))
        host_now = state.get(p.kern.layout.vcpd_at(p.at, 0) + const.VCPD_HOST)
        if state.count("second hosts"):
            assert host_now == third.me, "G4: the vcore was taken from a host that lives"
            assert word & 15 != const.VC_NOHOST, "G4: a vcore with a host that lives says that it has none"


@case("G4", "G11")
def unhost_against_a_host_that_lives(s: Scenario) -> None:
    """Somebody believes a vcore without host, and clears up, while a host comes: that one keeps it."""
    p = Process(s)
    host, other = p.attach(), p.attach()
    s.actor(_hosts_only(p, host), name="host", slot=host.my_slot)
    unhost = p.kern.proc.unhost_vcore

    def clears() -> None:
        unhost(other, 0)

    s.actor(clears, name="other", slot=other.my_slot)

    @s.at_end
    def kept(state: State) -> None:
        if state.count("hosts"):
            word = state.get(p.kern.layout.map_at(p.at, 0))
            named = state.get(p.kern.layout.vcpd_at(p.at, 0) + const.VCPD_HOST)
            assert named == host.me, "G4: the vcore was taken from a host that lives"
            assert word & 15 != const.VC_NOHOST, "G4: a vcore with a host that lives says that it has none"


def host_leaves(s: Scenario, *, flags: int = USUAL, own: bool = True) -> None:
    """A host leaves in good order (a stop of one worker, a restart) while somebody sends: another vcore takes over."""
    p = Process(s, vcores=2)
    p.queue(flags, own=own)
    seg, parlib, kern = p.attach(), p.parlib, p.kern
    vc = p.recorder(seg, 0)
    vc.note = s.note
    assert parlib.recover.host_vcore(seg, 0)
    parlib.vcore.disable_notifs(vc)
    assert parlib.vcore.vcore_entry(vc)
    p.vcore(1, mortal=False)

    def leaves() -> None:
        parlib.vcore.work(vc)
        parlib.vcore.vcore_leave(vc)
        kern.proc.unhost_vcore(seg, 0)
        parlib.recover.announce(seg)

    s.actor(leaves, name="leaver", slot=seg.my_slot)
    p.sender("sender", 1)
    nothing_lost(p)
    if not flags & const.EVENT_SPAM_PUBLIC:
        bounded_duplicates(p)
    at_rest(p)


variants(
    host_leaves,
    ("G1", "G2", "G5"),
    {"usual": {}, "public": {"flags": IPI, "own": False}, "spammed": {"flags": const.EVENT_SPAM_PUBLIC, "own": False}},
    models=("sc",),
    preemptions=1,
)


@case("G1", "G2", "G5", models=("sc",), preemptions=1)
def restarted(s: Scenario) -> None:
    """A host leaves and the next one of the same vcore comes, as in a restart, while somebody sends."""
    p = Process(s)
    p.queue()
    seg, parlib, kern = p.attach(), p.parlib, p.kern
    vc = p.recorder(seg, 0)
    vc.note = s.note
    assert parlib.recover.host_vcore(seg, 0)
    parlib.vcore.disable_notifs(vc)
    assert parlib.vcore.vcore_entry(vc)

    def leaves() -> None:
        parlib.vcore.work(vc)
        parlib.vcore.vcore_leave(vc)
        kern.proc.unhost_vcore(seg, 0)
        parlib.recover.announce(seg)
        s.interrupt(61)

    s.actor(leaves, name="leaver", slot=seg.my_slot)
    own = p.attach()
    vc2 = p.recorder(own, 0)
    vc2.note = s.note

    def lives() -> None:
        s.rest(61)
        if not parlib.recover.host_vcore(own, 0):
            return
        parlib.vcore.disable_notifs(vc2)
        parlib.vcore.vcore_entry(vc2)
        while True:
            if parlib.vcore.work(vc2) == 0 and parlib.vcore.vcore_yield(vc2):
                vc2.sleep()

    s.actor(lives, name="vcore 0", slot=own.my_slot, mortal=False)
    p.hosts[0] = own
    p.sender("sender", 1)
    usual(p)


@case("G1", "G4", preemptions=1)
def slot_of_the_dead_is_used_again(s: Scenario) -> None:
    """A vcore died with a message in hand, and another actor has its attach slot: the name is dead all the same."""
    p = Process(s, vcores=2)
    p.queue()
    gone = p.gone()
    assert p.kern.event.send_event(p.attach(), 0, p.message(1), const.NO_VCORE) == const.OK
    s.note("sent", 1, const.OK)
    cur = p.parlib.mbox.Cursor(p.kern.event.queue_mbox(p.at, 0))
    assert p.parlib.mbox.take(gone, cur)
    p.vcore(0, asleep=False, mortal=False)
    seg, recover = p.attach(), p.parlib.recover

    def recovers() -> None:
        recover.recover_vcore(seg, 1, gone.me)
        recover.announce(seg)

    s.actor(recovers, name="recoverer", slot=seg.my_slot)

    @s.at_end
    def again(state: State) -> None:
        assert state.count("got", 1), "G4: what was in dead hands is not delivered again"


@case("G1", "G4", deaths=1)
def living_hands_are_left_alone(s: Scenario) -> None:
    """A recoverer of one vcore looks at a mailbox where others who live have slots: it takes nothing from them."""
    p = Process(s, vcores=2)
    p.queue()
    dead, lives = p.attach(), p.attach()
    box = p.kern.event.queue_mbox(p.at, 0)
    mbox = p.parlib.mbox
    for arg in (1, 2):
        assert p.kern.ucq.send_ucq_msg(lives, box, p.message(arg)) == const.OK
    cur = mbox.Cursor(box)
    d = p.life.machine.door

    def takes(seg: Any, name: str) -> Any:
        def body() -> None:
            cur = mbox.Cursor(box)
            at = mbox.take(seg, cur)
            if at != 0:
                arg = d.ld16(seg.mem, at + const.SL_ARG1)
                s.note("got", arg)
                mbox.put_done(seg, cur, cur.taken)

        s.actor(body, name=name, slot=seg.my_slot, mortal=name == "dies")
        return cur

    takes(dead, "dies")
    takes(lives, "lives")
    seg = p.attach()

    def recovers() -> None:
        s.rest(DIED + 0)
        mbox.recover_mbox(seg, box)

    s.actor(recovers, name="recoverer", slot=seg.my_slot, mortal=False)
    bounded_duplicates(p)

    @s.always
    def at_most(state: State) -> None:
        if not state.dead(0):
            return
        twice = [arg for (arg,) in set(state.noted("got")) if state.count("got", arg) > 1]
        assert len(twice) <= 1, f"G4: one death, and events {twice} were handled twice"


@case("G1", "G2", "G4", deaths=1, preemptions=1)
def bit_handler_dies_and_the_next_host_comes(s: Scenario) -> None:
    """A vcore dies in a bit's handler, its next host comes: the bit is handled."""
    p = Process(s)
    p.queue(USUAL | const.EVENT_NOMSG)
    p.vcore(0)
    p.sender("sender", 1, mortal=False)
    restarter(p)

    @s.at_end
    def handled(state: State) -> None:
        watched = not state.dead(0) or state.ended(s.names.index("watcher of vcore 0"))
        if watched and state.count("sent", 1, const.OK):
            assert state.count("bit", const.TYPE_PROGRAM), "G1: a bit was sent, and is not handled"


@case("G8", "G1", models=("sc",), preemptions=1)
def must_run_against_preemption(s: Scenario) -> None:
    """A MUST_RUN event while the core of the vcore that runs is taken: one that runs, or comes next, handles it."""
    p = Process(s, vcores=2)
    p.queue(USUAL | const.EVENT_VCORE_MUST_RUN)
    p.vcore(0, asleep=False)
    p.vcore(1)
    p.sender("sender", 1)
    seg = p.attach()
    take, wake, announce = p.kern.proc.proc_preempt_core, p.kern.proc.startcore, p.parlib.recover.announce

    def preempts() -> None:
        take(seg, 0)
        announce(seg)
        wake(seg, 0)

    s.actor(preempts, name="preempter", slot=seg.my_slot)
    nothing_lost(p)
    bounded_duplicates(p)
    at_rest(p)


@case("G1", "G2", preemptions=1)
def scp_becomes_mcp(s: Scenario) -> None:
    """The number of vcores rises from one to two while somebody sends: whoever comes handles it."""
    p = Process(s)
    p.queue()
    p.vcore(0)
    seg, d = p.attach(), p.life.machine.door
    info, proc = p.at.procinfo, p.kern.proc

    def scales() -> None:
        if proc.proc_lock(seg):
            d.st64(seg.mem, info + const.PI_NUM_VCORES, 2)
            proc.proc_unlock(seg)

    s.actor(scales, name="scaler", slot=seg.my_slot)
    comes(p, 1)
    p.sender("sender", 1)
    usual(p)


@case("G1", "G2", preemptions=2)
def posix_signal(s: Scenario) -> None:
    """A signal's number as a kernel event to the queue that is registered for it."""
    p = Process(s)
    p.queue()
    p.set(p.kern.layout.kernel_evt_at(p.at, const.EV_POSIX_SIGNAL), 1, 4)
    p.vcore(0)
    seg, send, layout = p.attach(), p.kern.event.send_posix_signal, p.kern.layout

    def signals() -> None:
        s.note("signalled", send(seg, layout.Msg(), 10))

    s.actor(signals, name="sender", slot=seg.my_slot)

    @s.at_end
    def handled(state: State) -> None:
        assert state.count("signalled", const.OK), "the signal was not sent"
        assert state.count("got", 10), "G2: a signal's event was sent, and its vcore sleeps"


@case("G1", "G2", "G5", models=("sc",), preemptions=2)
def remote_mailbox(s: Scenario) -> None:
    """A vcore is told to look after another's public mail (EV_CHECK_MSGS), while that one comes back and looks itself."""
    p = Process(s, vcores=2)
    p.queue(IPI, own=False)
    p.vcore(1, asleep=False)
    comes(p, 0)
    p.sender("sender", 1)
    usual(p)


@case("G4", deaths=2, preemptions=1)
def recoverers_of_one_death(s: Scenario) -> None:
    """A host died with a message in hand; one who settles it dies too, and the next one does it, once."""
    p = Process(s, vcores=2)
    p.queue()
    gone = p.attach()
    box = p.kern.event.queue_mbox(p.at, 0)
    assert p.kern.ucq.send_ucq_msg(gone, box, p.message(1)) == const.OK
    mbox = p.parlib.mbox
    first, second, takes = p.attach(), p.attach(), p.attach()
    d = p.life.machine.door

    def dies() -> None:
        cur = mbox.Cursor(box)
        if mbox.take(gone, cur):
            s.note("got", 1)
            mbox.put_done(gone, cur, cur.taken)

    def settles(seg: Any, number: int) -> Any:
        def body() -> None:
            s.rest(DIED + number)
            mbox.recover_mbox(seg, box)

        return body

    def looks() -> None:
        cur = mbox.Cursor(box)
        mbox.take(takes, cur)
        if cur.taken:
            s.note("got", 1)
            mbox.put_done(takes, cur, cur.taken)
        s.rest(DIED + 2)
        if mbox.news(takes, cur):
            s.note("news")
        at = mbox.take(takes, cur)
        if at:
            assert d.ld16(takes.mem, at + const.SL_ARG1) == 1
            s.note("got", 1)
            mbox.put_done(takes, cur, cur.taken)

    s.actor(dies, name="dies", slot=gone.my_slot)
    s.actor(settles(first, 0), name="first", slot=first.my_slot)
    s.actor(settles(second, 1), name="second", slot=second.my_slot, mortal=False)
    s.actor(looks, name="looks", slot=takes.my_slot, mortal=False)
    bounded_duplicates(p)


@case("G1")
def kernel_queue_is_registered(s: Scenario) -> None:
    """A queue is made and registered for a kernel event while one is sent: who sees it registered sees all of it."""
    p = Process(s, vcores=2)
    p.queue(0)
    queue = p.kern.layout.evq_at(p.at, 0)
    box = p.get(queue + const.EVQ_MBOX, 4)
    p.set(queue + const.EVQ_MBOX, 0, 4)
    seg, own, d = p.attach(), p.attach(), p.life.machine.door
    send, layout = p.kern.event.send_posix_signal, p.kern.layout

    def registers() -> None:
        d.st32(own.mem, queue + const.EVQ_MBOX, box)
        d.str32(own.mem, layout.kernel_evt_at(own, const.EV_POSIX_SIGNAL), 1)

    def signals() -> None:
        s.note("signalled", send(seg, layout.Msg(), 10))

    s.actor(registers, name="owner", slot=own.my_slot)
    s.actor(signals, name="sender", slot=seg.my_slot)

    @s.at_end
    def in_its_mailbox(state: State) -> None:
        if state.count("signalled", const.OK):
            head = state.get(layout.mbox_at(p.at, box - 1) + const.MB_HEAD)
            assert head & const.PAGE_MASK, "G1: the event went elsewhere than to its queue's mailbox"
