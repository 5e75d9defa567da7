"""What the seed promises, as checks on a state in which nobody can do anything more."""

from __future__ import annotations

from collections.abc import Callable

from ...verdict import State
from .words import EV_EVENT, EV_VCORE_PREEMPT, Mailbox, Proc


def nothing_lost(p: Proc, *, of: Callable[[State], bool] = lambda state: True) -> None:
    """What was sent was handled: every vcore sleeps, or is in user code, and would be told. `of`: the states that count."""

    @p.s.at_end
    def check(state: State) -> None:
        for (msg,) in sorted(set(state.noted("sent"))):
            if msg >= EV_EVENT or not of(state):
                continue
            assert state.count("got", msg), f"lost: message {msg} was sent{_lies(p, state, msg)}, and nobody will look"


def _lies(p: Proc, state: State, msg: int) -> str:
    """Where a message lies, in words."""
    for mbox in p.mailboxes():
        if msg in waiting(mbox, state):
            return f", lies in {mbox.name}"
        if mbox.bitmap.get(state) >> msg & 1:
            return f", its bit is set in {mbox.name} (check_bits {mbox.check_bits.get(state)})"
    return ""


def waiting(mbox: Mailbox, state: State) -> list[int]:
    """The messages that nobody has taken."""
    return [mbox.contents[i].get(state) for i in range(mbox.cons.get(state), mbox.prod.get(state))]


def preempted_one_is_known(p: Proc, v: int) -> None:
    """MUST_RUN: news of a preempted vcore came to one that runs, or the vcore runs again itself."""

    @p.s.at_end
    def check(state: State) -> None:
        if not state.count("sent", EV_VCORE_PREEMPT | v) or state.count("recovered", v) or state.count("started", v):
            return
        where = [mbox.name for mbox in p.mailboxes() if EV_VCORE_PREEMPT | v in waiting(mbox, state)]
        raise AssertionError(
            f"must-run: vcore {v} lost its core with user code on it; the news lies in {', '.join(where) or 'no mailbox'}, "
            f"and nobody will look"
        )


def no_lock_of_the_dead(p: Proc, owners: dict[int, int]) -> None:
    """Nobody has died, or stopped, with the lock. `owners`: the lock's numbers, and whose they are."""

    @p.s.always
    def check(state: State) -> None:
        owner = owners.get(p.lock.get(state))
        if owner is not None and state.status(owner) in ("dead", "stopped"):
            raise AssertionError(f"proc_lock: its owner is {state.status(owner)}, and everybody else spins for ever")


def no_claim_of_the_dead(p: Proc, mbox: Mailbox) -> None:
    """No consumer waits for a slot whose producer has died or stopped."""

    @p.s.always
    def check(state: State) -> None:
        for i in range(mbox.cons.get(state)):
            if not mbox.ready[i].get(state) and any(
                state.status(actor) in ("dead", "stopped") for actor in range(len(state.names))
            ):
                raise AssertionError(f"{mbox.name}: slot {i} will never be ready, and its consumer spins for ever")
