"""The storm's books: what was sent, what was handled, written so that no death undoes or falsifies an entry.

Shared memory apart from every segment, inherited by whoever is forked. Each entry is one byte or one aligned word, and has
one writer at a time; whoever is killed between a deed and its entry leaves the entry out, and the checker knows which
entries may be missing: a `send` that is not noted as returned promises nothing, and a handler that is not noted as ended
is run again.

A *seat* is a sender's place: when its sender is killed the next one, of another *incarnation*, goes on with the seat's next
number. So an event's id is (seat, number), its sender is the incarnation, and the numbers of one sender rise.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

BEGUN, RETURNED, RAISED = 1, 2, 3
"""What became of a `send`: it has begun, it has returned, it has raised and so promises that nothing was sent."""

STATE_MASK = 3
KIND_SHIFT, KIND_MASK = 2, 31
GIVEN_UP = 0x80
"""The byte of a `send`: its state, above it the kind of event, and whether the event has been found as a dead letter."""

AGAIN_MAX = 7
"""The byte of a handled event has a bit for each number of redeliveries; the last stands for this many and more."""

REFUSED = 0x80
"""In the byte of a relayed event: there was no room for it, and the relaying handler said so."""

# Words of all.
STOP, KILLS, GLOBAL = 0, 1, 8
# Words of a seat.
NUMBER, WANTED, ANSWERED, SEAT = 0, 1, 2, 8
# Words of a vcore, behind which is one for each seat: how much of its `WANTED` a bit's handler has seen.
HANDLED, AGAIN, TWICE, DISORDER, DAMAGED, BAD_SEAT, BAD_NUMBER, VCORE = 0, 1, 2, 3, 4, 5, 6, 8
# Words of a kill: when it was, and when somebody handled an event after it.
AT_NS, NEXT_NS, KILL = 0, 1, 2


class Ledger:
    """Room for `events` events of each seat, and for so many kills; sparse until used."""

    def __init__(self, seats: int, vcores: int, events: int, kills: int) -> None:
        self.seats, self.vcores, self.events, self.kills = seats, vcores, events, kills
        self._vcores_at = GLOBAL + seats * SEAT
        self._kills_at = self._vcores_at + vcores * (VCORE + seats)
        nr_words = self._kills_at + kills * KILL
        self._bytes_at = nr_words * 8
        file = os.memfd_create("upcall-storm", os.MFD_CLOEXEC)
        try:
            os.ftruncate(file, self._bytes_at + 3 * seats * events)
            self._map = mmap.mmap(file, 0)
        finally:
            os.close(file)
        self.bytes = memoryview(self._map)
        self.words = self.bytes[: self._bytes_at].cast("Q")

    def close(self) -> None:
        """Lets the memory go."""
        self.words.release()
        self.bytes.release()
        self._map.close()

    def seat(self, seat: int) -> int:
        """The index of a seat's words."""
        return GLOBAL + seat * SEAT

    def vcore(self, vcore: int) -> int:
        """The index of a vcore's words."""
        return self._vcores_at + vcore * (VCORE + self.seats)

    def seen(self, vcore: int, seat: int) -> int:
        """The index of the word that says how much of a seat's WANTED a vcore has seen."""
        return self.vcore(vcore) + VCORE + seat

    def kill(self, number: int) -> int:
        """The index of a kill's words; the last ones share theirs if there are too many."""
        return self._kills_at + min(number, self.kills - 1) * KILL

    def sends(self, seat: int) -> int:
        """Where the bytes of a seat's `send`s begin."""
        return self._bytes_at + seat * self.events

    def handlings(self, seat: int) -> int:
        """Where the bytes of a seat's handled events begin."""
        return self.sends(self.seats + seat)

    def relays(self, seat: int) -> int:
        """Where the bytes of a seat's relayed events begin."""
        return self.sends(2 * self.seats + seat)

    def number(self, seat: int) -> int:
        """The last number that a seat has begun to send; numbers begin at 1."""
        return self.words[self.seat(seat) + NUMBER]

    def total(self, what: int) -> int:
        """The sum of one of the vcores' words."""
        return sum(self.words[self.vcore(v) + what] for v in range(self.vcores))

    def sent(self) -> int:
        """How many events all seats have begun to send."""
        return sum(self.number(seat) for seat in range(self.seats))

    def note_kill(self, now_ns: int) -> None:
        """One more kill, now."""
        number = self.words[KILLS]
        self.words[self.kill(number) + AT_NS] = now_ns
        self.words[KILLS] = number + 1

    def silences(self) -> Iterator[int]:
        """For each kill how long it took until somebody handled an event, in ns; kills after which nobody did before the
        next one count until somebody did."""
        handled = 0
        for number in reversed(range(min(self.words[KILLS], self.kills))):
            handled = self.words[self.kill(number) + NEXT_NS] or handled
            if handled:
                yield handled - self.words[self.kill(number) + AT_NS]
