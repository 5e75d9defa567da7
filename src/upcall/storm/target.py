"""The process under fire: queues of every kind, and handlers that enter what they handled into the ledger.

Each event carries its id, how long it is, and that many known bytes: an event that arrives is whole or is seen not to be.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterable

from ..errors import MailboxFull
from ..flags import WORK_QUEUE, EventFlag
from ..front.event import Event
from ..host.dead import DeadLetter
from ..proc import Proc
from . import ledger as books
from .ledger import Ledger

PLAIN, BLOCK, BATCH, SLOW, LIMITED, RELAY, FRAIL, THREAD, PRIVATE, PUBLIC = range(10)
KINDS = ("plain", "block", "batch", "slow", "limited", "relay", "frail", "thread", "private", "public")
"""The kinds of events that carry an id: one queue for each (THREAD only if asked for), but for the last two, which are
mail to a vcore. Events of FRAIL are dead letters once a vcore has died with them."""

RELAYED, BITS = "relayed", "bits"
"""The queue that relaying handlers send to, and the queue of bits, which carry nothing."""

MEMORY = "64 MiB"
LIMIT = 32
BATCH_MAX = 100
REDELIVERIES_MAX = 14
"""An event that is killed again and again is not given up here before a slot's own count of it ends."""

ID = struct.Struct("<QIIHH")
"""The beginning of every payload: number, incarnation, bytes behind the id, seat, lane."""

KNOWN = random.Random(0).randbytes(256 * 1024)
PAUSES_S = (0.0, 0.0, 0.0, 0.001, 0.005, 0.02, 0.08)
"""How long the handler of the slow queue takes; the last is more than `preempt_after_ms`."""

FRAIL_S = 0.0005
"""How long the handler of the frail queue takes: some are killed in it."""


def lane_of(kind: int, vcore: int = 0) -> int:
    """The mailbox that events of a kind go to, as a number: order holds in each."""
    return kind | vcore << 8


def known_bytes(number: int, length: int) -> bytes:
    """What follows the id of event `number`."""
    first = number % 251
    return KNOWN[first : first + length]


class Book:
    """What a vcore enters into the ledger. Made before the fork, used in the workers: each has its own."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.words = ledger.words
        self.last: dict[tuple[int, int], int] = {}
        self.kills = 0

    def note(self, ev: Event) -> None:
        """One event, handled now."""
        found = self.read(ev)
        if found is None:
            self.wrong(ev, books.DAMAGED, 0, 0)
            return
        number, incarnation, seat, lane = found
        at = self.ledger.handlings(seat) + number
        times = ev.redeliveries
        bit = 1 << min(times, books.AGAIN_MAX)
        before = self.ledger.bytes[at]
        if before & bit and times < books.AGAIN_MAX:
            self.wrong(ev, books.TWICE, seat, number)
        self.ledger.bytes[at] = before | bit
        if times == 0:
            if self.last.get((lane, incarnation), 0) >= number:
                self.wrong(ev, books.DISORDER, seat, number)
            self.last[lane, incarnation] = number
        else:
            self.words[self.ledger.vcore(ev.vcore) + books.AGAIN] += 1
        self.count(ev.vcore)

    def read(self, ev: Event) -> tuple[int, int, int, int] | None:
        """Number, incarnation, seat and lane of an event; None if it is not as it was sent."""
        data = bytes(ev.payload)
        if len(data) < ID.size:
            return None
        number, incarnation, length, seat, lane = ID.unpack_from(data)
        if seat >= self.ledger.seats or number >= self.ledger.events or data[ID.size :] != known_bytes(number, length):
            return None
        if ev.arg4 and (ev.arg1, ev.arg2, ev.arg3, ev.arg4) != arguments(number, incarnation, seat):
            return None
        return number, incarnation, seat, lane

    def wrong(self, ev: Event, what: int, seat: int, number: int) -> None:
        """Something that must not be."""
        at = self.ledger.vcore(ev.vcore)
        self.words[at + what] += 1
        self.words[at + books.BAD_SEAT], self.words[at + books.BAD_NUMBER] = seat, number

    def count(self, vcore: int) -> None:
        """One more handled, and the first since the last kill perhaps."""
        words = self.words
        words[self.ledger.vcore(vcore) + books.HANDLED] += 1
        kills = words[books.KILLS]
        if kills != self.kills:
            self.kills = kills
            at = self.ledger.kill(kills - 1) + books.NEXT_NS
            if not words[at]:
                words[at] = time.monotonic_ns()

    def note_relayed(self, ev: Event) -> None:
        """An event that a relaying handler has sent; it may have sent it more than once, if it was killed."""
        found = self.read(ev)
        if found is None:
            self.wrong(ev, books.DAMAGED, 0, 0)
            return
        number, _, seat, _ = found
        self.ledger.bytes[self.ledger.relays(seat) + number] |= 1
        self.count(ev.vcore)

    def note_bit(self, ev: Event) -> None:
        """A bit: whatever any sender wanted before this handler began has been seen once it ends."""
        ledger, words = self.ledger, self.words
        wanted = [words[ledger.seat(seat) + books.WANTED] for seat in range(ledger.seats)]
        for seat, value in enumerate(wanted):
            at = ledger.seen(ev.vcore, seat)
            words[at] = max(words[at], value)
        self.count(ev.vcore)


def arguments(number: int, incarnation: int, seat: int) -> tuple[int, int, int, int]:
    """The four arguments of an event with this id."""
    return seat, incarnation, number, number ^ (1 << 64) - 1


def define(name: str, vcores: int, ledger: Ledger, *, thread: bool = False) -> Proc:
    """The process under fire; `thread`: with a queue whose handlers run in uthread context."""
    proc = Proc(name, vcores=vcores, memory=MEMORY)
    book = Book(ledger)
    for kind in (PLAIN, BLOCK, BATCH, SLOW, RELAY):
        proc.queue(KINDS[kind], max_redeliveries=REDELIVERIES_MAX)
    proc.queue(KINDS[FRAIL], on_death="dead-letter")
    proc.queue(KINDS[LIMITED], limit=LIMIT, on_full="block", max_redeliveries=REDELIVERIES_MAX)
    if thread:
        proc.queue(KINDS[THREAD], flags=WORK_QUEUE | EventFlag.THREAD, max_redeliveries=REDELIVERIES_MAX)
    proc.queue(BITS, flags=WORK_QUEUE | EventFlag.NOMSG)
    relayed = proc.queue(RELAYED, max_redeliveries=REDELIVERIES_MAX)

    for kind in (PLAIN, BLOCK, LIMITED, THREAD, PRIVATE, PUBLIC):
        proc.on(KINDS[kind])(book.note)
    proc.on(RELAYED)(book.note_relayed)
    proc.on(BITS)(book.note_bit)

    @proc.on_batch(KINDS[BATCH], BATCH_MAX)
    def batch(events: Iterable[Event]) -> None:
        for ev in events:
            book.note(ev)

    @proc.on(KINDS[SLOW])
    def slow(ev: Event) -> None:
        time.sleep(random.choice(PAUSES_S))
        book.note(ev)

    @proc.on(KINDS[FRAIL])
    def frail(ev: Event) -> None:
        time.sleep(FRAIL_S)
        book.note(ev)

    @proc.on(KINDS[RELAY])
    def relay(ev: Event) -> None:
        found = book.read(ev)
        try:
            relayed.send(RELAYED, bytes(ev.payload))
        except MailboxFull:
            if found is not None:
                ledger.bytes[ledger.relays(found[2]) + found[0]] |= books.REFUSED
        book.note(ev)

    return proc


def bury(ledger: Ledger, letter: DeadLetter) -> None:
    """Enters a dead letter into the ledger: its event is not handled any more, and not lost."""
    number, _, _, seat, _ = ID.unpack_from(letter.payload)
    if letter.type == RELAYED:
        ledger.bytes[ledger.relays(seat) + number] |= books.REFUSED
    else:
        ledger.bytes[ledger.sends(seat) + number] |= books.GIVEN_UP
