"""A vcore that sleeps in an event loop's poll: a byte in its FIFO wakes it, and one is enough."""

from __future__ import annotations

from typing import Any

from ...kern import const
from ..plan import Scenario
from ..process import DIED, SMALL, TYPE, USUAL, Process
from ..verdict import State
from .cases import case, variants
from .hosts import comes
from .preempting import preempter
from .properties import at_rest, bits_handled, nothing_lost, settled, usual

IPI = const.EVENT_IPI
NOMSG = const.EVENT_NOMSG
BIT = TYPE
"""The bit that a task has in hand; the next one is sent meanwhile."""


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


def loop(
    p: Process,
    vcoreid: int = 0,
    *,
    full: bool = False,
    bit: bool = False,
    ends: bool = False,
    cancelled: bool = False,
    mortal: bool = False,
) -> Any:
    """An actor that hosts a vcore with an event loop, which may have one task. `full`: it has that, and sleeps, with
    message 9 in hand; `bit`: with bit BIT. `ends`: an actor of that name ends a task that it has, at any time; else none
    ends. `cancelled`: its first task is cancelled then."""
    s, parlib, kern = p.s, p.parlib, p.kern
    poll, vcore = parlib.poll, parlib.vcore
    seg = p.attach()
    vc = keeper(p)(seg, vcoreid)
    vc.note = s.note
    assert parlib.recover.host_vcore(seg, vcoreid)
    vcore.disable_notifs(vc)
    poll.sleep_in_poll(vc)
    assert vcore.vcore_entry(vc)
    if full or bit:
        vc.keeps_bits, vc.cancels = bit, cancelled
        assert kern.event.send_event(p.attach(), 0, p.message(9, BIT if bit else TYPE), const.NO_VCORE) == const.OK
        while not vcore.vcore_yield(vc):
            vcore.work(vc)
        assert vc.full or vc.bit_task
    over = s.word(f"the task of vcore {vcoreid} is over") if ends else None

    def end_task() -> None:
        if over is None or not vc.hands or not over.load():
            return
        hand = vc.hands.pop()
        if vc.keeps_bits:
            again, vc.cancels = vc.cancels, False
            if not again:
                s.note("bit", hand)
            poll.bit_done(vc, again)
        else:
            parlib.mbox.put_done(seg, *hand)
            poll.no_longer_full(vc)

    def sleeps() -> None:
        s.rest(vcoreid)
        end_task()
        while not poll.come_back(vc):
            s.rest(vcoreid)

    def lives() -> None:
        if full or bit:
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
    """A vcore whose handlers go on as tasks, one at most, in `hands`: those of messages, or of bits. One class for each load
    of the protocol."""
    made = p.life.__dict__.get("check_keeper")
    if made is not None:
        return made
    now_full, ld16 = p.parlib.poll.now_full, p.life.machine.door.ld16

    class Keeper(p.recorder):  # type: ignore[misc,name-defined]
        keeps_bits = cancels = False

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

        def deliver_bit(self, cur: Any, ev_type: int) -> int:
            if not self.keeps_bits:
                return super().deliver_bit(cur, ev_type)  # type: ignore[no-any-return]
            self.bit_task = True
            self.hands.append(ev_type)
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


@case("G1", "G2", preemptions=2)
def full_loop_and_one_that_comes(s: Scenario) -> None:
    """A full loop is told while there is nobody to pass it on to; a vcore that starts takes what waits, untold."""
    p = Process(s, vcores=2)
    p.queue()
    loop(p, full=True)
    comes(p, 1)
    p.sender("sender", 1)
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


# ---- bits in the hands of tasks --------------------------------------------------------------------------------------


def bits_are_handled(p: Process, *ev_types: int) -> None:
    """G1, G4: each of these bits was handled, or, if nobody is there for it any more, is set."""

    @p.s.at_end
    def check(state: State) -> None:
        for ev_type in ev_types:
            assert state.count("bit", ev_type), f"G1: bit {ev_type} was set, and its handler has not run to its end"
        for mbox in range(p.at.nr_mboxes):
            at = p.kern.layout.mbox_at(p.at, mbox) + const.MB_BITMAP
            assert not any(state.get(at + i * 8) for i in range(const.MB_BITMAP_WORDS)), (
                "G2: a bit is set, and all sleep"
            )


def bit_in_a_task(
    s: Scenario,
    *,
    flags: int = USUAL,
    own: bool = True,
    cancelled: bool = False,
    both: bool = False,
    vcores: int = 1,
    dies: bool = False,
) -> None:
    """A bit's handler goes on as a task while another bit is sent: that one waits for it, or is another vcore's.

    `both`: that one was there from the start."""
    p = Process(s, vcores=vcores)
    p.queue(flags | NOMSG, own=own)
    if both:
        p.kern.event.set_bit(p.at, p.kern.event.queue_mbox(p.at, 0), BIT + 1)
    loop(p, bit=True, ends=True, cancelled=cancelled, mortal=dies)
    if vcores > 1:
        p.vcore(1, mortal=False)
    if not both:
        p.sender("sender", 1, ev_type=BIT + 1, mortal=False)
    if dies:
        p.supervisor("vcore 0")
    bits_are_handled(p, BIT, BIT + 1)
    at_rest(p)


HELD: dict[str, dict[str, Any]] = {
    "usual": {},
    "to_the_vcore": {"flags": IPI, "own": False},
    "cancelled": {"cancelled": True},
    "cancelled_to_the_vcore": {"flags": IPI, "own": False, "cancelled": True},
    "both_there": {"both": True},
    "beside_another": {"vcores": 2},
}
variants(bit_in_a_task, ("G1", "G2"), HELD, preemptions=2)
variants(
    bit_in_a_task, ("G1", "G2", "G4"), {"dies": {"vcores": 2, "dies": True}}, deaths=1, preemptions=1
)  # fmt: skip


def bit_of_one_that_leaves(s: Scenario, *, cancelled: bool = False) -> None:
    """A host leaves while a task has a bit in hand, and the task ends, or is cancelled: another vcore handles the bit."""
    p = Process(s, vcores=2)
    p.queue(USUAL | NOMSG)
    vc = loop(p, bit=True)
    p.vcore(1)
    parlib, unhost = p.parlib, p.kern.proc.unhost_vcore

    def leaves() -> None:
        parlib.poll.give_bit_back(vc)
        parlib.vcore.vcore_leave(vc)
        unhost(vc.s, 0)
        parlib.recover.announce(vc.s)
        if not cancelled:
            s.note("bit", vc.hands.pop())
        parlib.poll.bit_done(vc, cancelled)

    s.bodies[0] = leaves
    bits_are_handled(p, BIT)


variants(bit_of_one_that_leaves, ("G1", "G2"), {"usual": {}, "cancelled": {"cancelled": True}}, preemptions=2)


@case("G1", "G4", deaths=1)
def bit_of_one_that_has_left(s: Scenario) -> None:
    """A host has left, and its task with a bit in hand ends: what the next host has in hand is noted all the same."""
    p = Process(s)
    p.queue(USUAL | NOMSG)
    vc = loop(p, bit=True)
    parlib, kern = p.parlib, p.kern
    parlib.poll.give_bit_back(vc)
    parlib.vcore.vcore_leave(vc)
    kern.proc.unhost_vcore(vc.s, 0)
    seg, watcher = p.attach(), p.attach()
    assert parlib.recover.host_vcore(seg, 0)
    box = kern.event.queue_mbox(p.at, 0)
    own, cur = p.recorder(seg, 0), parlib.mbox.Cursor(box)
    held, bitmap = (
        kern.layout.vcpd_at(p.at, 0) + const.VCPD_BIT,
        kern.layout.mbox_at(p.at, box) + const.MB_BITMAP,
    )
    own.note, own.looks_at, d = s.note, held, p.life.machine.door

    def ends() -> None:
        parlib.poll.bit_done(vc, False)

    def handles() -> None:
        parlib.vcore.handle_bits(own, cur)

    def settles() -> None:
        # Looked at first, so that they are known to be shared: a death is explored where others can tell.
        d.ld64(watcher.mem, held)
        d.ld64(watcher.mem, bitmap)
        s.rest(DIED + 1)
        parlib.recover.restore_bit(watcher, 0)

    s.bodies[0] = ends
    s.actor(handles, name="next host", slot=seg.my_slot)
    s.actor(settles, name="watcher", slot=watcher.my_slot, mortal=False)

    @s.at_end
    def there(state: State) -> None:
        if not state.count("bit", BIT):
            assert state.get(bitmap), "G4: a bit was in a dead hand, and is gone"
