"""A research kernel's event delivery, as its source says it and as its design describes the rest."""

from __future__ import annotations

from collections.abc import Callable

from ...plan import Scenario
from ..showings import shown
from .checks import no_claim_of_the_dead, no_lock_of_the_dead, nothing_lost, preempted_one_is_known
from .event import Sender
from .proc import STARTS, Kernel
from .user import BITS_AFTER, BITS_FIRST, Vcore
from .words import (
    DYING,
    EV_VCORE_PREEMPT,
    FALLBACK,
    INDIR,
    IPI,
    MUST_RUN,
    NOMSG,
    ROUNDROBIN,
    RUNNABLE_M,
    RUNNING_S,
    SPAM_PUBLIC,
    WAITING,
    Proc,
)

USUAL = IPI | INDIR | FALLBACK
SPAM = IPI | SPAM_PUBLIC
GATE = 32
"""An interrupt that an actor waits for before it goes on."""


def sender(
    p: Proc, number: int, queue: int, *msgs: int, mortal: bool = False, after: Callable[[], object] | None = None
) -> int:
    """An actor: a core of the kernel that sends these messages, and notes each that was sent. Its number."""
    kernel, s = Sender(p, number), p.s

    def sends() -> None:
        i = 0
        while i < len(msgs):
            kernel.send_event(queue, msgs[i])
            s.note("sent", msgs[i])
            i += 1
        if after is not None:
            after()

    s.actor(sends, name=f"kernel {number}", mortal=mortal)
    return len(s.names) - 1


def vcore(p: Proc, v: int, starts: str, *, user: bool = False, bits: str = BITS_FIRST, mortal: bool = False) -> int:
    """An actor: a vcore. It starts "offline", "awake" (in vcore context), in "user" code, or as one that is to lose its
    core: "stands" in user code, "halts" in vcore context. Its number."""
    vc, s = Vcore(p, v, bits), p.s
    vc.me.notif_disabled.store(0 if starts in ("user", "stands") else 1)

    def lives() -> None:
        if starts in ("offline", "stands", "halts"):
            s.rest(STARTS + v)
            s.note("started", v)
        elif starts == "user":
            s.rest(v)
            vc.me.notif_disabled.store(1)
        vc.lives(user=user)

    s.actor(lives, name=f"vcore {v}", mortal=mortal)
    return len(s.names) - 1


def preempts(p: Proc, number: int, v: int, queue: int) -> None:
    """An actor: the kernel takes a vcore's core, and sends the news."""
    kernel = Sender(p, number)

    def takes() -> None:
        kernel.preempt_core(v)
        kernel.send_event(queue, EV_VCORE_PREEMPT | v)
        p.s.note("sent", EV_VCORE_PREEMPT | v)

    p.s.actor(takes, name=f"kernel {number}", mortal=False)
    p.s.actor(Kernel(p, number + 1).schedules, name="scheduler", mortal=False)


def single(p: Proc, *, asleep: bool = False, user: bool = False, changes: bool = False) -> None:
    """An actor: a single-core process's vcore 0, awake unless told otherwise. `changes`: it becomes a many-core process,
    with vcore 1."""
    vc, s = Vcore(p, 0), p.s
    vc.me.notif_disabled.store(1)

    def lives() -> None:
        if changes:
            vc.handle_events()
            vc.change_to_m(1)
            vc.lives(user=user)
        elif asleep:
            s.rest(STARTS)
        vc.lives_single(user=user)

    s.actor(lives, name="vcore 0", mortal=False)


def laid_out(s: Scenario, **options: object) -> Proc:
    """A process of the seed's; its locks and its consumers spin."""
    s.spins = True
    return Proc(s, **options)  # type: ignore[arg-type]


# ---- what holds ------------------------------------------------------------------------------------------------------


@shown("seed")
def seed_spam_against_yield(s: Scenario) -> None:
    """A message is spammed to a vcore that yields: the flag, looked at before and after, `notif_pending`, the lists."""
    p = laid_out(s, online=(0,))
    p.queue(SPAM, own=False)
    vcore(p, 0, "awake")
    sender(p, 1, 0, 1, 2)
    nothing_lost(p)


@shown("seed")
def seed_indirection_against_yield(s: Scenario) -> None:
    """A message in a queue's own mailbox and its indirection, against a vcore that yields. The claim of a slot is an atomic
    operation and empties the store buffer before `alert_pending` is read: a write barrier is enough for messages on x86."""
    p = laid_out(s, online=(0,))
    p.queue(USUAL)
    vcore(p, 0, "awake")
    sender(p, 1, 0, 1, 2)
    nothing_lost(p)


@shown("seed")
def seed_two_wake_a_process(s: Scenario) -> None:
    """Two cores send to a process that sleeps: one of them wakes it, the other relies on that."""
    p = laid_out(s, inactive=(0,), state=WAITING)
    p.queue(SPAM, own=False)
    vcore(p, 0, "offline")
    sender(p, 1, 0, 1)
    sender(p, 2, 0, 2)
    nothing_lost(p)


@shown("seed", bounds={"tso": 1, "ra": 1})
def seed_list_changes(s: Scenario) -> None:
    """Two vcores yield while a message is spammed: the walk along the list's heads, with its second test, and its bound."""
    p = laid_out(s, vcores=2, online=(0, 1))
    p.queue(SPAM, own=False)
    vcore(p, 0, "awake")
    vcore(p, 1, "awake")
    sender(p, 1, 0, 1)
    nothing_lost(p)


@shown("seed")
def seed_interrupts_user_code(s: Scenario) -> None:
    """Two messages for a vcore on its way back into user code: it is interrupted."""
    p = laid_out(s, online=(0,))
    p.queue(USUAL)
    vcore(p, 0, "user", user=True)
    sender(p, 1, 0, 1, 2)
    nothing_lost(p)


@shown("seed")
def seed_bulk_preempted(s: Scenario) -> None:
    """A message is spammed to a process that has lost all its cores, while it is given one again."""
    p = laid_out(s, vcores=2, bulk=(0,), inactive=(1,), state=RUNNABLE_M)
    p.queue(SPAM, own=False, vcore=1)
    vcore(p, 0, "offline")
    vcore(p, 1, "offline")
    scheduler = Kernel(p, 2)
    s.actor(scheduler.give_core, name="scheduler", mortal=False)
    sender(p, 1, 0, 1)
    nothing_lost(p)


@shown("seed")
def seed_mail_of_a_preempted_vcore(s: Scenario) -> None:
    """A vcore in user code loses its core while it is sent a message: whoever recovers it turns its flag off, then looks
    into its mailbox; a sender posts, then looks at the flag."""
    p = laid_out(s, vcores=2, online=(0, 1))
    p.queue(SPAM, own=False, vcore=1)
    p.queue(SPAM | MUST_RUN, own=False)
    vcore(p, 0, "user", user=True)
    vcore(p, 1, "stands")
    preempts(p, 2, 1, queue=1)
    sender(p, 1, 0, 1)
    nothing_lost(p)
    preempted_one_is_known(p, 1)


@shown("seed", bounds={"ra": 1})
def seed_change_to_a_preempted_vcore(s: Scenario) -> None:
    """A vcore loses its core in vcore context. Whoever is told gives it its own core, and looks preempted itself then: mail
    that comes to it meanwhile is looked at by the other one (EV_CHECK_MSGS)."""
    p = laid_out(s, vcores=2, online=(0, 1))
    p.queue(SPAM, own=False)
    p.queue(SPAM | MUST_RUN, own=False)
    vcore(p, 0, "user", user=True)
    vcore(p, 1, "halts", user=True)
    preempts(p, 2, 1, queue=1)
    sender(p, 1, 0, 1)
    nothing_lost(p)
    preempted_one_is_known(p, 1)


@shown("seed", bounds={"sc": 3, "tso": 1, "ra": 1})
def seed_preempted_while_it_yields(s: Scenario) -> None:
    """The same with a vcore that is on its way to yield: its flag is off already, and it is the online list's head while the
    walk posts to it. It yields in the end, on the other one's core, or finds that it may not."""
    p = laid_out(s, vcores=2, online=(1, 0))
    p.vcpd[1].flags.store(0)
    p.queue(SPAM, own=False, vcore=1)
    p.queue(SPAM | MUST_RUN, own=False)
    vcore(p, 0, "user", user=True)
    vcore(p, 1, "halts")
    preempts(p, 2, 1, queue=1)
    sender(p, 1, 0, 1)
    nothing_lost(p)
    preempted_one_is_known(p, 1)


@shown("seed")
def seed_single_core_sleep(s: Scenario) -> None:
    """A single-core process goes to sleep: it says WAITING, then looks; a sender posts, then looks at the state."""
    p = laid_out(s, state=RUNNING_S, mcp=False)
    p.vcpd[0].mapped.store(1)
    p.queue(IPI)
    single(p)
    sender(p, 1, 0, 1, 2)
    nothing_lost(p)


@shown("seed")
def seed_single_core_bits(s: Scenario) -> None:
    """Two cores set bits for a single-core process that sleeps, and then runs user code. A sender may find vcore 0 not yet
    mapped while its own `notif_pending` is in its store buffer; but its bit, set by an atomic operation, is there by then,
    and whoever wakes the process makes it look."""
    p = laid_out(s, state=WAITING, mcp=False)
    p.queue(IPI | NOMSG)
    single(p, asleep=True, user=True)
    sender(p, 1, 0, 1)
    sender(p, 2, 0, 2)
    nothing_lost(p)


@shown("seed")
def seed_dies_while_woken(s: Scenario) -> None:
    """A process is destroyed while a message wakes it: the wake-up looks at the state under the lock, and leaves the dead
    one alone."""
    p = laid_out(s, inactive=(0,), state=WAITING)
    p.queue(SPAM, own=False)
    vcore(p, 0, "offline")
    sender(p, 1, 0, 1)
    kernel = Kernel(p, 2)

    def destroys() -> None:
        kernel.destroy()
        s.note("destroyed")

    s.actor(destroys, name="kernel 2", mortal=False)

    @s.at_end
    def stays_dead(state: object) -> None:
        assert p.state.get(state) == DYING, "a destroyed process was woken"  # type: ignore[arg-type]


# ---- what does not -----------------------------------------------------------------------------------------------------


@shown("seed", broken=("tso", "ra"), says="lost", bounds={"sc": 3, "tso": 2, "ra": 2})
def seed_bit_behind_the_throttle(s: Scenario) -> None:
    """Three events as bits, with indirections: `check_bits` is still in the sender's store buffer when it reads
    `alert_pending`, which the vcore is about to clear. A write barrier does not keep a store before a load."""
    p = laid_out(s, online=(0,))
    p.queue(USUAL | NOMSG)
    vcore(p, 0, "awake")
    sender(p, 1, 0, 1)
    sender(p, 2, 0, 2, 3)
    nothing_lost(p)


@shown("seed", broken=("tso", "ra"), says="lost", bounds={"sc": 3})
def seed_message_behind_the_throttle(s: Scenario) -> None:
    """The same with messages, if the consumer does not wait for a slot that is claimed but not `ready` yet, as the seed's
    does: `ready` is still in the sender's store buffer when it reads `alert_pending`."""
    p = laid_out(s, online=(0,), waits=False)
    p.queue(USUAL)
    vcore(p, 0, "awake")
    sender(p, 1, 0, 1, 2)
    nothing_lost(p)


@shown("seed", broken=("tso", "ra"), says="lost")
def seed_interrupt_lost_at_start(s: Scenario) -> None:
    """A vcore is given its core back, finds nothing pending, and runs user code. A sender relies on its flag, and has looked
    whether it is mapped while its own `notif_pending` was still in its store buffer: not yet, so no interrupt."""
    p = laid_out(s, bulk=(0,), state=RUNNABLE_M)
    p.queue(SPAM, own=False)
    vcore(p, 0, "offline", user=True)
    scheduler = Kernel(p, 2)
    s.actor(scheduler.give_core, name="scheduler", mortal=False)
    sender(p, 1, 0, 1)
    nothing_lost(p)


@shown("seed", broken=("sc", "tso", "ra"), says="lost")
def seed_mail_without_pending(s: Scenario) -> None:
    """A message for a vcore's own mailbox from a queue that asks for no interrupt: `send_event` posts it with
    `post_ev_msg`, not with `post_vc_msg`, and `notif_pending` stays clear. The vcore runs, yields, and never looks."""
    p = laid_out(s, online=(0,))
    p.queue(0, own=False)
    vc = Vcore(p, 0)
    vc.me.notif_disabled.store(1)

    def lives() -> None:
        s.rest(GATE)  # it is busy until the message is there
        vc.lives()

    s.actor(lives, name="vcore 0", mortal=False)
    sender(p, 1, 0, 1, after=lambda: s.interrupt(GATE))
    nothing_lost(p)


@shown("seed", models=("sc", "tso"), broken=("sc", "tso"), says="must-run")
def seed_preemption_news_to_the_preempted(s: Scenario) -> None:
    """A vcore loses its core while the other one yields, and is off the online list but not yet inactive: the walk finds
    nobody online, and the head of the inactive ones, which may be messaged, is the preempted vcore itself. It is told of its
    own preemption, the process is not WAITING yet, so nobody is woken, and then it is."""
    p = laid_out(s, vcores=2, online=(0, 1))
    p.queue(SPAM | MUST_RUN, own=False)
    vcore(p, 0, "awake")
    vcore(p, 1, "stands")
    preempts(p, 1, 1, queue=0)
    preempted_one_is_known(p, 1)


@shown("seed", models=("sc",), broken=("sc",), says="lies in vc0.public", bounds={"sc": 1})
def seed_becomes_a_many_core_process(s: Scenario) -> None:
    """A sender has seen a single-core process and posts to vcore 0 without asking its flag; by then it is a many-core one,
    its vcore 0 has yielded, vcore 1 runs, and nobody is WAITING."""
    p = laid_out(s, vcores=2, inactive=(1,), state=RUNNING_S, mcp=False)
    p.vcpd[0].mapped.store(1)
    p.queue(USUAL)
    single(p, changes=True)
    vcore(p, 1, "offline", user=True)
    sender(p, 1, 0, 1)
    nothing_lost(p)


@shown("seed", broken=("sc", "tso", "ra"), says="ZeroDivisionError")
def seed_round_robin_of_none(s: Scenario) -> None:
    """The next of no vcores: the last one yields while a round-robin queue is sent to, and the kernel divides by zero."""
    p = laid_out(s, online=(0,))
    p.queue(USUAL | ROUNDROBIN)
    vcore(p, 0, "awake")
    sender(p, 1, 0, 1)
    nothing_lost(p)


def bits(s: Scenario, order: str) -> None:
    p = laid_out(s, online=(0,))
    p.queue(USUAL | NOMSG)
    vcore(p, 0, "awake", bits=order)
    sender(p, 1, 0, 1)
    sender(p, 2, 0, 2)
    nothing_lost(p)


@shown("seed", models=("sc",), broken=("sc",), says="lost")
def seed_check_bits_cleared_after(s: Scenario) -> None:
    """`check_bits` is cleared after the scan, and then asked whether to look again: a bit set in between is not seen."""
    bits(s, BITS_AFTER)


@shown("seed", models=("sc",), bounds={"sc": 4})
def seed_check_bits_cleared_before(s: Scenario) -> None:
    """`check_bits` is cleared before the scan: a bit set in between has set it again."""
    bits(s, BITS_FIRST)


# ---- what a kernel that can be killed adds -------------------------------------------------------------------------------


def one_may_die(s: Scenario, flags: int, *, own: bool = True) -> tuple[Proc, int]:
    """A process that sleeps, and two cores that send, the first of which may be killed."""
    p = laid_out(s, inactive=(0,), state=WAITING)
    p.queue(flags, own=own)
    vcore(p, 0, "offline")
    mortal = sender(p, 1, 0, 1, mortal=True)
    sender(p, 2, 0, 2)
    return p, mortal


MORTAL = {"models": ("sc",), "broken": ("sc",)}


@shown("seed", **MORTAL, says="lost", deaths=1)
def seed_killed_before_its_indirection(s: Scenario) -> None:
    """A sender is killed between `alert_pending` and the indirection: the queue is silent for ever, for everybody."""
    p, _ = one_may_die(s, USUAL)
    nothing_lost(p, of=lambda state: p.vcpd[0].public.prod.get(state) == 0)


@shown("seed", **MORTAL, says="lost", deaths=1)
def seed_killed_before_its_wake(s: Scenario) -> None:
    """A sender is killed between a vcore's flag, which it sets for it, and the wake-up: others rely on the flag."""
    p, _ = one_may_die(s, SPAM, own=False)
    nothing_lost(p, of=lambda state: p.state.get(state) == WAITING)


@shown("seed", **MORTAL, says="proc_lock", deaths=1)
def seed_killed_with_the_lock(s: Scenario) -> None:
    """A sender is killed with `proc_lock`."""
    p, mortal = one_may_die(s, SPAM, own=False)
    no_lock_of_the_dead(p, {1: mortal})


@shown("seed", **MORTAL, says="proc_lock", stops=1)
def seed_stopped_with_the_lock(s: Scenario) -> None:
    """A sender is stopped with `proc_lock`."""
    p, mortal = one_may_die(s, SPAM, own=False)
    no_lock_of_the_dead(p, {1: mortal})


@shown("seed", **MORTAL, says="never be ready", deaths=1)
def seed_killed_with_a_slot(s: Scenario) -> None:
    """A sender is killed between its slot's claim and `ready`: the consumer has claimed it, and waits."""
    p, _ = one_may_die(s, USUAL)
    no_claim_of_the_dead(p, p.queues[0].mbox)  # type: ignore[arg-type]


@shown("seed", **MORTAL, says="lost", deaths=1)
def seed_vcore_killed_with_a_message(s: Scenario) -> None:
    """A vcore is killed with a message in its hand: nobody else has it. (The other vcore is left to sleep: the seed tells
    nobody of a death, for its vcores do not die by themselves.)"""
    p = laid_out(s, vcores=2, online=(0, 1))
    p.queue(SPAM, own=False)
    vcore(p, 0, "awake", mortal=True)
    vcore(p, 1, "awake")
    sender(p, 1, 0, 1)
    nothing_lost(p)
