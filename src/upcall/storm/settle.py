"""The end of a storm: senders end, everything is handled, everybody rests, the process stops. Each step under a watchdog.

The watchdog does not time a step: it times standstill. A step may take as long as events go on being handled; if none is
for PATIENCE_S and the step is not done, something hangs, and the storm says what.
"""

from __future__ import annotations

import time

from ..host.drain import drain
from ..inspect import Reader
from ..remote import connect
from . import ledger as books
from .check import kind_name
from .company import Company, Seat, Stuck
from .ledger import Ledger
from .leftovers import leftovers, unkept_flags
from .sender import Sender
from .target import bury

PATIENCE_S = 30.0
"""Longer than any pause between a worker's restarts."""

LOOK_S = 0.05
SHOWN_MAX = 12


class Watchdog:
    """Raises Stuck once nothing has been handled for PATIENCE_S."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.seen, self.since = -1, 0.0

    def look(self, waits_for: str) -> None:
        """Called again and again while a step is not done."""
        handled, now = self.ledger.total(books.HANDLED), time.monotonic()
        if handled != self.seen:
            self.seen, self.since = handled, now
        elif now - self.since > PATIENCE_S:
            raise Stuck(f"nothing handled for {PATIENCE_S:g} s, and {waits_for}")


class Settling:
    """The steps, in order. The segment stays open beyond the stop: it is looked at when everybody has gone."""

    def __init__(self, company: Company) -> None:
        assert company.remote is not None
        self.company, self.ledger, self.remote = company, company.ledger, company.remote
        self.segment, self.seg = company.attachment()
        self.reader = Reader(company.proc.name)
        self.problems: list[str] = []
        self.restarts = 0

    def run(self) -> None:
        """All steps. Stuck if one does not end."""
        self.end_senders(self.company.senders)
        self.drain()
        self.company.seat_sender(self.company.caller, call_roll)
        self.end_senders([self.company.caller])
        self.drain()
        self.bury()
        self.rest()
        self.stop()
        self.problems += [f"left over: {what}" for what in some(list(leftovers(self.segment, self.seg)))]

    def end_senders(self, seats: list[Seat]) -> None:
        """Each sender returns from the `send` that it is in, and ends."""
        dog = Watchdog(self.ledger)
        while waiting := [seat for seat in seats if seat.pid]:
            self.company.wait(time.monotonic() + LOOK_S)
            dog.look("; ".join(self.where(seat) for seat in waiting))

    def where(self, seat: Seat) -> str:
        """What a sender that does not end is doing."""
        number = self.ledger.number(seat.number)
        entry = self.ledger.bytes[self.ledger.sends(seat.number) + number]
        return f"{self.company.where(seat)}, its last send is number {number} ({kind_name(entry)})"

    def drain(self) -> None:
        """Every event is handled, private mail included."""
        dog = Watchdog(self.ledger)
        while True:
            self.company.wait(0.0)
            try:
                left_out = drain(self.remote.handle(), LOOK_S)
            except TimeoutError as error:
                dog.look(str(error))
                continue
            if not left_out:
                return
            self.company.wait(time.monotonic() + LOOK_S)  # their hosts are on their way
            dog.look(f"nobody hosts vcores {left_out}, which have private mail")

    def bury(self) -> None:
        """Dead letters are entered into the ledger, and discarded."""
        letters = self.remote.dead_letters()
        for letter in letters:
            bury(self.ledger, letter)
        if (gone := self.remote.discard(letters)) != len(letters):
            self.problems.append(f"{len(letters)} dead letters listed, {gone} discarded")

    def rest(self) -> None:
        """Every vcore is hosted, and sleeps; no flag says that anybody will look."""
        dog = Watchdog(self.ledger)
        while awake := self.awake():
            self.company.wait(time.monotonic() + LOOK_S)
            dog.look(f"vcores do not come to rest: {awake}")
        self.problems += unkept_flags(self.segment)

    def awake(self) -> str:
        """The vcores that are not asleep."""
        self.reader.refresh()
        return ", ".join(f"{v.id} {v.state}" for v in self.reader.vcores() if v.state != "OFFLINE" or not v.alive)

    def stop(self) -> None:
        """The process ends, with all its workers."""
        self.reader.refresh()
        self.restarts = sum(vcore.restarts for vcore in self.reader.vcores())
        if not self.company.end_supervisor(PATIENCE_S):
            raise Stuck(
                f"the process still stops after {PATIENCE_S:g} s: {self.company.where(self.company.supervisor)}"
            )

    def close(self) -> None:
        """Lets the segment go."""
        self.reader.close()


def some(found: list[str]) -> list[str]:
    """The first of many."""
    return found if len(found) <= SHOWN_MAX else [*found[:SHOWN_MAX], f"and {len(found) - SHOWN_MAX} more"]


def call_roll(ledger: Ledger, name: str, seat: int, incarnation: int, vcores: int, seed: int) -> None:
    """The life of a sender that comes after the storm."""
    with connect(name) as remote:
        Sender(ledger, remote, seat, incarnation, vcores).roll_call()
