"""What a peer offers to the jobs: a one-way channel between processes, as the plain callables of its two ends.

The ends are callables, not methods of a common class, so that the timed loop calls the peer's own function with nothing
of ours between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import repeat
from typing import Any, Protocol

Handler = Callable[[Any], object]
"""Takes one message, or one sequence of messages from a batching receiver."""


def nothing() -> None:
    """The `close` of an end that holds nothing."""


@dataclass(frozen=True)
class SendEnd:
    """The sending side. `send` waits while the channel is full; `send_many` takes a list of messages."""

    send: Callable[[Any], object]
    send_many: Callable[[list[bytes]], object] | None = None
    close: Callable[[], object] = nothing


@dataclass(frozen=True)
class ReceiveEnd:
    """The receiving side.

    `take` waits for a message; `poll` returns None if there is none. `run(handler, n)` calls the handler for each of n
    messages by the cheapest way the peer has, `run_many(handler, n)` with sequences of messages, n in all.
    """

    take: Callable[[], Any]
    poll: Callable[[], Any | None] | None = None
    run: Callable[[Handler, int], None] | None = None
    run_many: Callable[[Handler, int], None] | None = None
    close: Callable[[], object] = nothing

    def handle(self, handler: Handler, count: int) -> None:
        """Calls the handler for each of `count` messages, waiting for them."""
        if self.run is not None:
            self.run(handler, count)
            return
        take = self.take
        for _ in repeat(None, count):
            handler(take())


class Link(Protocol):
    """A channel for messages of one size. Made before the fork; each end is then opened by the role that uses it.

    The receiver opens its end before any sender does.
    """

    @property
    def room(self) -> int:
        """How many messages surely fit while nobody receives."""
        ...

    def sender(self) -> SendEnd:
        """Opens the sending side, in the sender's process."""
        ...

    def receiver(self) -> ReceiveEnd:
        """Opens the receiving side, in the receiver's process."""
        ...

    def destroy(self) -> None:
        """Removes the channel, in the parent, when both processes have ended, however they did."""
        ...


MakeLink = Callable[[int], Link]
"""Makes a link for messages of this many bytes."""


def missing(module: str) -> str | None:
    """Why an optional peer cannot be measured: its module is not installed. None if it is."""
    return None if find_spec(module) else f"{module} is not installed: pip install 'upcall[bench]'"
