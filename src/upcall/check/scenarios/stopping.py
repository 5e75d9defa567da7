"""A stop: vcores are told, whatever they do, and leave; then the segment is removed, or kept for the next start if anything
waits. Senders may come at any time."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import DIED, USUAL, Process
from ..verdict import State
from .cases import case, variants
from .properties import Quiet, at_rest, bounded_duplicates

IPI = const.EVENT_IPI
SMALLEST = (1, 1, 64, 8, 4, 2, 1)


def worker(p: Process, *, asleep: bool, user: bool = False, mortal: bool = False) -> Any:
    """An actor that hosts vcore 0 until it is told to stop, as `VCoreHost.loop` does, and then ends: its end is noticed as a
    death is, by a pidfd. `user`: in place of sleeping it runs user code, until it is interrupted."""
    seg, s, d = p.attach(), p.s, p.life.machine.door
    vc = p.recorder(seg, 0)
    vc.note = s.note
    vcore, unhost, announce = p.parlib.vcore, p.kern.proc.unhost_vcore, p.parlib.recover.announce
    assert p.parlib.recover.host_vcore(seg, 0)
    vcore.disable_notifs(vc)
    assert vcore.vcore_entry(vc)
    if asleep:
        while not vcore.vcore_yield(vc):
            vcore.work(vc)
    stop, number = seg.procinfo + const.PI_STOP, len(s.bodies)
    word, is_running = p.kern.layout.map_at(seg, 0), p.kern.proc.is_running

    def runs_user_code() -> None:
        # An interrupt in vcore context is thrown away: whoever leaves it looks at the news itself.
        s.interrupt(0)
        s.rest(0)
        if vcore.leave_vcore_context(vc):
            if d.ld32(seg.mem, stop) == 0:
                s.rest(0)
            vcore.disable_notifs(vc)

    def sleeps() -> None:
        # As `Dispatcher.sleep`: off its core, by compare-and-swap, before the look at PI_STOP; pairs with `nudge`.
        while True:
            w = d.ld64(seg.mem, word)
            if is_running(w & 15) or d.ld32(seg.mem, stop) != 0:
                break
            d.futex_wait(seg.mem, word, w, -1)
        vcore.vcore_entry(vc)

    def lives() -> None:
        if asleep:
            sleeps()
        while True:
            how = d.ld32(seg.mem, stop)
            if how == const.STOP_NOW:
                break
            if vcore.work(vc):
                continue
            if how == const.STOP_DRAIN:
                vcore.look_everywhere(vc)
                if vcore.work(vc) == 0:
                    break
            elif user:
                runs_user_code()
            elif vcore.vcore_yield(vc):
                sleeps()
        vcore.vcore_leave(vc)
        unhost(seg, 0)
        if d.ld32(seg.mem, stop) == 0:
            announce(seg)
        s.interrupt(DIED + number)

    p.hosts[0] = seg
    s.actor(lives, name="vcore 0", slot=seg.my_slot, mortal=mortal)
    return vc


def owner(p: Process, how: int, *, mortal: bool = False) -> None:
    """An actor that stops the process: tells the vcore once, waits for its end, settles what it may have left, and ends the
    process."""
    seg, s, d = p.attach(), p.s, p.life.machine.door
    ending, unhost, recover = p.parlib.ending, p.kern.proc.unhost_vcore, p.parlib.recover.recover_vcore
    number = s.names.index("vcore 0")

    def stops() -> None:
        ending.tell_to_stop(seg, how)
        ending.nudge(seg, 0)
        s.rest(DIED + number)
        name = d.ld64(seg.mem, p.kern.layout.vcpd_at(seg, 0) + const.VCPD_HOST)
        unhost(seg, 0)
        recover(seg, 0, name)
        s.note("removed" if ending.end_process(seg) else "kept")

    s.actor(stops, name="owner", slot=seg.my_slot, mortal=mortal)


def handled_or_kept(p: Process, *before: int) -> None:
    """G1: what was sent has been handled, or lies in a segment that is kept. `before`: sent before the stop, and handled."""

    @p.s.at_end
    def check(state: State) -> None:
        assert state.count("removed") + state.count("kept") == 1, "G2: told to stop, the vcore sleeps"
        lies = {arg for arg, _, _ in Quiet(p, state).messages(const.READY)}
        for arg, status in set(state.noted("sent")):
            if status == const.OK and not state.count("got", arg):
                assert state.count("kept"), f"G1: event {arg} was sent, and the segment is removed"
                assert arg in lies, f"G1: event {arg} was sent, and is gone"
        for arg in before:
            told = state.count("got", arg) or state.dead(0)
            assert told, f"G1: event {arg} was sent before a stop that drains, and is not handled"


def stopped(
    s: Scenario,
    *,
    how: int = const.STOP_DRAIN,
    asleep: bool = False,
    user: bool = False,
    before: bool = False,
    sends: bool = True,
    dies: bool = False,
    flags: int = USUAL,
    own: bool = True,
) -> None:
    """A vcore is told to stop, asleep, at work, on its way to sleep or in user code, while somebody sends."""
    p = Process(s, geometry=SMALLEST)
    p.queue(flags, own=own)
    worker(p, asleep=asleep, user=user, mortal=dies)
    if before:
        assert p.kern.event.send_event(p.attach(), 0, p.message(1), const.NO_VCORE) == const.OK
        s.note("sent", 1, const.OK)
    if sends:
        p.sender("sender", 2, mortal=False)
    owner(p, how)
    handled_or_kept(p, *((1,) if before and how == const.STOP_DRAIN else ()))
    bounded_duplicates(p)
    at_rest(p)


NOW = const.STOP_NOW
ALONE: dict[str, dict[str, Any]] = {
    "asleep": {"asleep": True},
    "at_work": {"before": True},
    "at_work_now": {"before": True, "how": NOW},
    "in_user_code": {"user": True},
    "in_user_code_now": {"user": True, "how": NOW},
}
BESIDE: dict[str, dict[str, Any]] = {
    "asleep": {"asleep": True},
    "asleep_now": {"asleep": True, "how": NOW},
    "at_work": {},
    "at_work_now": {"how": NOW},
    "in_user_code": {"user": True},
    "mail": {"flags": IPI, "own": False},
    "mail_now": {"flags": IPI, "own": False, "how": NOW},
}
variants(stopped, ("G1", "G2", "G5"), {f"alone_{k}": {**v, "sends": False} for k, v in ALONE.items()})
variants(stopped, ("G1", "G2", "G5"), BESIDE, preemptions=1)
variants(
    stopped,
    ("G1", "G2", "G4"),
    {"and_dies": {"before": True, "dies": True}, "and_dies_now": {"before": True, "dies": True, "how": NOW}},
    deaths=1,
    preemptions=1,
)  # fmt: skip


def the_end(s: Scenario, *, flags: int = USUAL, own: bool = True, vcores: int = 1) -> None:
    """A process ends while somebody sends: the event is found and kept for the next start, or its sender is told."""
    p = Process(s, vcores=vcores, geometry=SMALLEST)
    p.queue(flags, own=own)
    p.sender("sender", 1)
    seg, end_process = p.attach(), p.parlib.ending.end_process

    def ends() -> None:
        s.note("removed" if end_process(seg) else "kept")

    s.actor(ends, name="owner", slot=seg.my_slot)

    @s.at_end
    def told(state: State) -> None:
        assert not (state.count("sent", 1, const.OK) and state.count("removed")), "G1: sent, and removed"
        if state.count("kept"):
            word = state.get(p.at.procinfo + const.PI_STATE) & 0xFF
            assert word != const.P_DYING, "G1: kept for the next start, and who sends meanwhile is told that it is gone"


ENDS: dict[str, dict[str, Any]] = {
    "usual": {},
    "as_a_bit": {"flags": USUAL | const.EVENT_NOMSG},
    "mail": {"flags": IPI, "own": False},
    "private": {"flags": IPI | const.EVENT_VCORE_PRIVATE, "own": False},
}
variants(the_end, ("G1",), ENDS)


@case("G1", "G4", deaths=1)
def who_ends_it_dies(s: Scenario) -> None:
    """Whoever ends a process dies on the way; the next one does it, while somebody sends."""
    p = Process(s, geometry=SMALLEST)
    p.queue()
    p.sender("sender", 1, mortal=False)
    first, second, end_process = p.attach(), p.attach(), p.parlib.ending.end_process

    def ends() -> None:
        s.note("removed" if end_process(first) else "kept")

    def ends_then() -> None:
        s.rest(DIED + 1)
        s.note("removed" if end_process(second) else "kept")

    s.actor(ends, name="first", slot=first.my_slot)
    s.actor(ends_then, name="second", slot=second.my_slot, mortal=False)

    @s.at_end
    def told(state: State) -> None:
        assert not (state.count("sent", 1, const.OK) and state.count("removed")), "G1: sent, and removed"


@case("G1", "G2", preemptions=1)
def stopped_and_started_again(s: Scenario) -> None:
    """A stop leaves what is sent too late; the next start's first vcore handles it."""
    p = Process(s, geometry=SMALLEST)
    p.queue()
    worker(p, asleep=True)
    owner(p, const.STOP_DRAIN)
    p.sender("sender", 1, mortal=False)
    seg = p.attach()
    vc = p.recorder(seg, 0)
    vc.note = s.note
    d, vcore, host_vcore = p.life.machine.door, p.parlib.vcore, p.parlib.recover.host_vcore
    stops, started = s.bodies[1], 61

    def stops_and_starts() -> None:
        stops()
        # As `_take_over` does for the next run.
        d.st32(seg.mem, seg.procinfo + const.PI_STOP, 0)
        s.interrupt(started)

    def lives() -> None:
        s.rest(started)
        assert host_vcore(seg, 0)
        vcore.disable_notifs(vc)
        vcore.vcore_entry(vc)
        while True:
            if vcore.work(vc) == 0 and vcore.vcore_yield(vc):
                vc.sleep()

    s.bodies[1] = stops_and_starts
    s.actor(lives, name="vcore 0, next host", slot=seg.my_slot, mortal=False)

    @s.at_end
    def handled(state: State) -> None:
        if state.count("sent", 1, const.OK):
            assert state.count("got", 1), "G1: an event was sent, and the next start does not handle it"
