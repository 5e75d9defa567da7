"""The common "notified flag plus wake-up token": who adds work sets a flag, and writes a token (to a pipe, an eventfd) only
if it was clear; who works is woken by the token."""

from __future__ import annotations

from ..plan import Scenario
from ..verdict import State
from .showings import shown

TOKEN_FIRST, FLAG_FIRST = "token, then flag", "flag, then token"


def pattern(s: Scenario, order: str, *, fenced: bool = True) -> None:
    """Two producers, and a consumer that takes the token and clears the flag in this order, then takes all work there is.
    `fenced`: the flag's clearing is a full fence. The token is an eventfd's counter: a read takes all of it."""
    work, flag, token = s.word("work"), s.word("flag"), s.word("token")

    def produces() -> None:
        work.add(1)
        if not flag.exchange(1):
            token.add(1)
            token.wake()

    def take_token() -> None:
        while not token.exchange(0):
            token.wait(0)

    def clear_flag() -> None:
        if fenced:
            flag.exchange(0)
        else:
            flag.store(0)

    def consumes() -> None:
        while True:
            if order == TOKEN_FIRST:
                take_token()
                clear_flag()
            else:
                while not token.load():  # woken, because there is something to read
                    token.wait(0)
                clear_flag()
                take_token()
            while work.load():
                work.add(-1)

    s.actor(produces, name="producer 1")
    s.actor(produces, name="producer 2")
    s.actor(produces, name="producer 3")
    s.actor(consumes, name="consumer", mortal=False)

    @s.at_end
    def done(state: State) -> None:
        left = work.get(state)
        assert not left, (
            f"lost wake-up: {left} piece(s) of work wait, the flag is {flag.get(state)}, the consumer sleeps"
        )


@shown("notified-flag", broken=("sc", "tso", "ra"), says="lost wake-up")
def flag_cleared_before_the_token_is_taken(s: Scenario) -> None:
    """The flag is cleared, then the token taken. A producer in between sets the flag and writes a token, which is taken with
    the first: from then on the flag says that a token is there, and none is."""
    pattern(s, FLAG_FIRST)


@shown("notified-flag")
def token_taken_before_the_flag_is_cleared(s: Scenario) -> None:
    """The token is taken, then the flag cleared, then the work looked at: a producer in between relies on the look."""
    pattern(s, TOKEN_FIRST)


@shown("notified-flag", broken=("tso", "ra"), says="lost wake-up")
def flag_cleared_without_a_fence(s: Scenario) -> None:
    """The right order with a plain store: the flag's clearing is in the consumer's store buffer while it looks for work and
    finds none; a producer sees the flag still set."""
    pattern(s, TOKEN_FIRST, fenced=False)


@shown("notified-flag", models=("sc",), broken=("sc",), says="lost wake-up", deaths=1)
def producer_killed_before_its_token(s: Scenario) -> None:
    """The right order, and a producer killed between the flag and the token: nobody writes one any more."""
    pattern(s, TOKEN_FIRST)
