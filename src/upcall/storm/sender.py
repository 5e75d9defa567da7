"""A sender's life: bursts of events of every kind, each noted before its `send` and after it has returned."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

from ..errors import MailboxBusy, MailboxFull
from ..remote import Remote, connect
from . import ledger as books
from .ledger import Ledger
from .target import (
    BATCH,
    BATCH_MAX,
    BITS,
    BLOCK,
    FRAIL,
    ID,
    KINDS,
    LIMITED,
    PLAIN,
    PRIVATE,
    PUBLIC,
    RELAY,
    SLOW,
    THREAD,
    arguments,
    known_bytes,
    lane_of,
)

BURST_MAX = 64
PAUSE_MAX_S = 0.004
MIX = {
    PLAIN: 400,
    BLOCK: 150,
    BATCH: 60,
    SLOW: 2,
    FRAIL: 10,
    LIMITED: 150,
    RELAY: 60,
    THREAD: 60,
    PRIVATE: 60,
    PUBLIC: 60,
    None: 60,
}
"""How often each kind comes; None is a bit."""

SIZES = ((1, 500), (500, 5_000), (5_000, 40_000), (40_000, 200_000))
"""Payloads in blocks: small ones of several classes, and some of a span or more. Smaller ones come more often."""


class Sender:
    """One incarnation on a seat: it sends under its own attached thread, and dies when it is told to."""

    def __init__(self, ledger: Ledger, remote: Remote, seat: int, incarnation: int, vcores: int) -> None:
        self.ledger, self.remote = ledger, remote
        self.seat, self.incarnation, self.vcores = seat, incarnation, vcores
        self.words, self.at, self.sends = ledger.words, ledger.seat(seat), ledger.sends(seat)
        there = remote.queues
        self.queues = {kind: remote.queue(name) for kind, name in enumerate(KINDS) if name in there}
        self.bits = remote.queue(BITS)
        self.mail = [remote.vcore(v) for v in range(vcores)]

    def run(self, rng: random.Random) -> None:
        """Until the ledger says stop, or is full."""
        mix = [kind for kind, share in MIX.items() if kind != THREAD or kind in self.queues for _ in range(share)]
        while not self.words[books.STOP]:
            if self.ledger.number(self.seat) + BURST_MAX * BATCH_MAX >= self.ledger.events:
                time.sleep(0.05)
                continue
            for _ in range(rng.randint(1, BURST_MAX)):
                self.some(rng.choice(mix), rng)
            if rng.random() < 0.5:
                time.sleep(rng.random() * PAUSE_MAX_S)

    def some(self, kind: int | None, rng: random.Random) -> None:
        """One event of a kind, or one batch."""
        if kind is None:
            self.bit()
        elif kind == BATCH:
            self.batch(rng.randint(1, BATCH_MAX))
        elif kind in (PRIVATE, PUBLIC):
            self.letter(kind, rng.randrange(self.vcores), rng.randint(0, 60))
        elif kind == BLOCK:
            least, most = SIZES[min(int(rng.expovariate(1.0)), len(SIZES) - 1)]
            self.event(kind, rng.randint(least, most))
        else:
            self.event(kind, rng.randint(0, 60))

    def event(self, kind: int, length: int) -> None:
        """An event to the queue of its kind."""
        self.one(kind, lane_of(kind), length, partial(self.queues[kind].send, KINDS[kind]))

    def letter(self, kind: int, vcore: int, length: int) -> None:
        """Mail to a vcore."""
        send = partial(self.mail[vcore].send, KINDS[kind], private=kind == PRIVATE)
        self.one(kind, lane_of(kind, vcore), length, send)

    def one(self, kind: int, lane: int, length: int, send: Callable[..., None]) -> None:
        """Sends one event, with its entries."""
        number = self.begin(kind, 1)
        what = books.RETURNED
        arg1, arg2, arg3, arg4 = arguments(number, self.incarnation, self.seat)
        try:
            send(self.payload(number, length, lane), arg1=arg1, arg2=arg2, arg3=arg3, arg4=arg4)
        except (MailboxFull, MailboxBusy):
            what = books.RAISED
        self.ledger.bytes[self.sends + number] = kind << books.KIND_SHIFT | what

    def batch(self, count: int) -> None:
        """Several events at once."""
        first, lane = self.begin(BATCH, count), lane_of(BATCH)
        payloads = [self.payload(first + i, 10, lane) for i in range(count)]
        sent = count
        try:
            self.queues[BATCH].send_many(KINDS[BATCH], payloads)
        except (MailboxFull, MailboxBusy) as error:
            sent = error.sent
        at = self.sends + first
        entries = [BATCH << books.KIND_SHIFT | books.RETURNED] * sent
        entries += [BATCH << books.KIND_SHIFT | books.RAISED] * (count - sent)
        self.ledger.bytes[at : at + count] = bytes(entries)

    def begin(self, kind: int, count: int) -> int:
        """Notes that the next numbers are about to be sent; the first of them. The numbers first: whoever is killed
        between the two has used them up, and has sent nothing."""
        first = self.words[self.at + books.NUMBER] + 1
        self.words[self.at + books.NUMBER] = first + count - 1
        at = self.sends + first
        self.ledger.bytes[at : at + count] = bytes([kind << books.KIND_SHIFT | books.BEGUN]) * count
        return first

    def payload(self, number: int, length: int, lane: int) -> bytes:
        """An event's id and its known bytes."""
        return ID.pack(number, self.incarnation, length, self.seat, lane) + known_bytes(number, length)

    def bit(self) -> None:
        """A bit; numbered on its own."""
        wanted = self.words[self.at + books.WANTED] + 1
        self.words[self.at + books.WANTED] = wanted
        self.bits.send(BITS)
        self.words[self.at + books.ANSWERED] = wanted

    def roll_call(self) -> None:
        """One event of every kind: after the storm, does everything still work?"""
        for kind in (PLAIN, SLOW, RELAY, FRAIL, THREAD):
            if kind in self.queues:
                self.event(kind, 20)
        for _least, most in SIZES:
            self.event(BLOCK, most)
        for _ in range(200):
            self.event(LIMITED, 20)
        self.batch(BATCH_MAX)
        for vcore in range(self.vcores):
            self.letter(PRIVATE, vcore, 20)
            self.letter(PUBLIC, vcore, 20)
        self.bit()


def live(ledger: Ledger, name: str, seat: int, incarnation: int, vcores: int, seed: int) -> None:
    """A sender process's whole life."""
    with connect(name) as remote:
        Sender(ledger, remote, seat, incarnation, vcores).run(random.Random(f"{seed}/{seat}/{incarnation}"))
