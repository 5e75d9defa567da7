"""A vcore that sleeps in an event loop's poll: a byte in its FIFO wakes it, and one is enough."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import SMALL, USUAL, Process
from ..verdict import State
from .cases import case, variants
from .preempting import preempter
from .properties import at_rest, bits_handled, nothing_lost, settled, usual

IPI = const.EVENT_IPI


def polled(s: Scenario, *, flags: int = USUAL, own: bool = True, vcores: int = 1, asleep: bool = True) -> None:
    """A sender against a vcore that sleeps in a poll, or goes there."""
    p = Process(s, vcores=vcores)
    p.queue(flags, own=own)
    p.vcore(0, asleep=asleep, poll=True)
    p.sender("sender", 1)
    if flags & const.EVENT_NOMSG:
        bits_handled(p)
        at_rest(p)
    elif flags & const.EVENT_SPAM_PUBLIC:
        nothing_lost(p)
        at_rest(p)
    else:
        usual(p)


KINDS = {
    "usual": {"flags": USUAL},
    "without_ipi": {"flags": const.EVENT_INDIR | const.EVENT_FALLBACK},
    "as_a_bit": {"flags": USUAL | const.EVENT_NOMSG},
    "to_the_vcore": {"flags": IPI, "own": False},
    "private": {"flags": IPI | const.EVENT_VCORE_PRIVATE, "own": False},
    "spammed": {"flags": IPI | const.EVENT_SPAM_PUBLIC, "own": False},
    "many": {"flags": USUAL, "vcores": 2},
}
variants(polled, ("G1", "G2", "G5", "G12"), KINDS)
variants(
    polled,
    ("G1", "G2", "G5", "G12"),
    {f"awake_{name}": {"asleep": False, **KINDS[name]} for name in ("usual", "as_a_bit", "private")},
    preemptions=2,
)


@case("G1", "G2", "G5", "G12", preemptions=2)
def polled_by_two(s: Scenario) -> None:
    """Two senders wake one poll: the second relies on the first one's byte only once it is there."""
    p = Process(s)
    p.queue()
    p.vcore(0, poll=True)
    p.sender("one", 1)
    p.sender("two", 2)
    usual(p)


@case("G1", "G2", "G5", "G12", preemptions=2)
def polled_and_woken_otherwise(s: Scenario) -> None:
    """The loop wakes for something of its own while somebody gives it a core."""
    p = Process(s)
    p.queue()
    p.vcore(0, poll=True)
    p.sender("sender", 1)

    def timer() -> None:
        s.interrupt(0)

    s.actor(timer, name="timer", mortal=False)
    usual(p)


@case("G1", "G2", "G3", "G12", deaths=1, preemptions=1)
def waker_of_a_poll_dies(s: Scenario) -> None:
    """A sender dies between giving the core and the byte: the next one writes its own."""
    p = Process(s)
    p.queue()
    p.vcore(0, poll=True, mortal=False)
    p.sender("one", 1)
    p.sender("two", 2, mortal=False)
    p.supervisor("one")
    settled(p)


@case("G1", "G2", "G4", preemptions=1)
def polled_and_taken_over(s: Scenario) -> None:
    """A vcore that polls is taken for one that does not move, and comes back."""
    p = Process(s)
    p.queue()
    p.vcore(0, asleep=False, poll=True)
    p.sender("sender", 1)
    preempter(p)
    usual(p)


@case("G9", "G12")
def one_byte_is_enough(s: Scenario) -> None:
    """Two messages for a loop that has not come to its byte yet: one byte."""
    p = Process(s)
    p.queue()
    p.vcore(0, poll=True)
    p.s.bodies[0] = _nothing  # it is in its poll, and stays there
    p.sender("sender", 1, 2)
    record = p.kern.layout.slot_record_at(p.at, p.attached - 1)

    @s.at_end
    def woken_once(state: State) -> None:
        wakes = state.get(record + const.AS_WAKES)
        assert wakes == 1, f"G9: {wakes} wakes for two messages"


def _nothing() -> None:
    """An actor that does nothing."""


# ---- full: as many tasks as it may have ------------------------------------------------------------------------------


def loop(p: Process, vcoreid: int = 0, *, full: bool = False, ends: bool = False, mortal: bool = False) -> Any:
    """An actor that hosts a vcore with an event loop, which may have one task. `full`: it has that, and sleeps, with
    message 9 in hand. `ends`: an actor of that name ends a task that it has, at any time; else none ends."""
    s, parlib, kern = p.s, p.parlib, p.kern
    poll, vcore = parlib.poll, parlib.vcore
    seg = p.attach()
    vc = keeper(p)(seg, vcoreid)
    vc.note = s.note
    assert parlib.recover.host_vcore(seg, vcoreid)
    vcore.disable_notifs(vc)
    poll.sleep_in_poll(vc)
    assert vcore.vcore_entry(vc)
    if full:
        assert kern.event.send_event(p.attach(), 0, p.message(9), const.NO_VCORE) == const.OK
        while not vcore.vcore_yield(vc):
            vcore.work(vc)
        assert vc.full
    over = s.word(f"the task of vcore {vcoreid} is over") if ends else None

    def end_task() -> None:
        if over is not None and vc.hands and over.load():
            parlib.mbox.put_done(seg, *vc.hands.pop())
            poll.no_longer_full(vc)

    def sleeps() -> None:
        s.rest(vcoreid)
        end_task()
        while not poll.come_back(vc):
            s.rest(vcoreid)

    def lives() -> None:
        if full:
            sleeps()
        while True:
            found = vcore.work(vc)
            end_task()
            if found == 0 and vcore.vcore_yield(vc):
                sleeps()

    p.hosts[vcoreid] = seg
    s.actor(lives, name=f"vcore {vcoreid}", slot=seg.my_slot, mortal=mortal)
    if over is not None:

        def timer() -> None:
            over.store(1)
            s.interrupt(vcoreid)

        s.actor(timer, name=f"timer of vcore {vcoreid}", mortal=False)
    return vc


def keeper(p: Process) -> Any:
    """A vcore whose handlers go on as tasks, one at most, in `hands`. One class for each load of the protocol."""
    made = p.life.__dict__.get("check_keeper")
    if made is not None:
        return made
    now_full, ld16 = p.parlib.poll.now_full, p.life.machine.door.ld16

    class Keeper(p.recorder):  # type: ignore[misc,name-defined]
        def __init__(self, seg: Any, vcoreid: int) -> None:
            super().__init__(seg, vcoreid)
            self.tasks.add(0)
            self.hands: list[Any] = []

        def deliver(self, cur: Any, at: int) -> int:
            arg = ld16(self.s.mem, at + const.SL_ARG1)
            self.note("got", arg)
            self.hands.append((cur, cur.taken))
            now_full(self)
            return 0

    Keeper.__module__ = "upcall_checked_recorder"
    p.life.__dict__["check_keeper"] = Keeper
    return Keeper


@case("G1", "G2", "G5", preemptions=3)
def full_loop_beside_another(s: Scenario) -> None:
    """What a full loop is told of is another's work, also if that one has just looked and is on its way to sleep."""
    p = Process(s, vcores=2)
    p.queue()
    loop(p)
    p.vcore(1, asleep=False)
    p.sender("sender", 1, 2)
    usual(p)


def full_loop(s: Scenario, *, asleep: bool = True, taken_over: bool = False) -> None:
    """A loop is full, and sleeps; beside it a vcore that can take what it is told of."""
    p = Process(s, vcores=2)
    p.queue()
    loop(p, full=True)
    p.vcore(1, asleep=asleep)
    p.sender("sender", 1)
    if taken_over:
        preempter(p, 1)
    usual(p)


FULL: dict[str, dict[str, Any]] = {
    "and_one_asleep": {},
    "and_one_awake": {"asleep": False},
}
variants(full_loop, ("G1", "G2", "G5"), FULL, preemptions=2)
variants(full_loop, ("G1", "G2", "G5"), {"and_one_taken_over": {"taken_over": True}}, preemptions=1)


@case("G1", "G2", preemptions=2)
def full_loop_told_everything(s: Scenario) -> None:
    """An indirection that found no room is a bit, and says: every queue. A full loop passes it on as such."""
    p = Process(s, vcores=2)
    p.queue()
    loop(p, full=True)
    p.vcore(1, asleep=False)
    p.queue(const.EVENT_FALLBACK)  # its sends tell nobody
    seg = p.attach()
    kern = p.kern

    def tells() -> None:
        status = kern.event.send_event(seg, 0, p.message(1), const.NO_VCORE)
        kern.event.spam_vcore(seg, 0, p.message(0, const.EV_EVENT), const.EVENT_NOMSG)
        kern.proc.startcore(seg, 0)
        s.note("sent", 1, status)

    s.actor(tells, name="sender", slot=seg.my_slot, mortal=False)
    usual(p)


def both_full(s: Scenario, *, full: bool = False, refused: bool = False) -> None:
    """Two loops, each full or soon to be: the first whose task ends takes what both have refused, and is told again.
    `refused`: both were told of a message that the second had taken by then."""
    p = Process(s, vcores=2)
    p.queue()
    loop(p, full=True)
    other = loop(p, 1, full=full, ends=True)
    if refused:
        assert p.parlib.mbox.take(other.s, other.cursors[0]) == 0  # it has seen the end, and is full by another queue
        p.set(p.kern.layout.evq_at(p.at, 0) + const.EVQ_ALERT, const.ALERT_DONE)
    p.sender("sender", *((1,) if full else (1, 2)))
    usual(p)


variants(both_full, ("G1", "G2", "G5"), {"asleep": {"full": True}, "in_turn": {}}, preemptions=2)
variants(both_full, ("G1", "G2", "G5"), {"and_told": {"full": True, "refused": True}}, preemptions=2)


def passed_on(s: Scenario, *, mortal: int, stops: bool = False) -> None:
    """A full loop, or whoever it passes on to, dies on the way, or is stopped for ever and taken over."""
    p = Process(s, vcores=3, geometry=(3, *SMALL[1:]))
    p.queue()
    loop(p, full=True, mortal=mortal == 0)
    p.vcore(1, mortal=mortal == 1)
    p.vcore(2, mortal=False)
    p.sender("sender", 1, mortal=False)
    if stops:
        preempter(p, mortal)
        usual(p)
    else:
        p.supervisor(f"vcore {mortal}")
        settled(p)


WHO = {"by_one_that": {"mortal": 0}, "to_one_that": {"mortal": 1}}
variants(passed_on, ("G1", "G2", "G4"), {f"{k}_dies": v for k, v in WHO.items()}, deaths=1, preemptions=1)
variants(
    passed_on, ("G1", "G2"), {f"{k}_stops": {**v, "stops": True} for k, v in WHO.items()}, stops=1, preemptions=1
)  # fmt: skip
