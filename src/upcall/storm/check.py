"""What the books say once everything has come to rest: lost, handled twice, out of order, damaged.

- *Lost*: its `send` returned, and no handler of it ended, and it is no dead letter; of a relayed event: its relaying
  handler ended.
- *Duplicate*: handled again, after a redelivery. Each death may cause one for each event that was in those hands: an event
  that was redelivered n times is handled at most once for each number of redeliveries up to n.
- *Handled twice*: twice with the same number of redeliveries. No death excuses that.
- *Out of order*: an event, not redelivered, that a vcore handled after a later one of the same sender and mailbox.
- *Never sent*: handled, though its `send` has raised, or has never begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from . import ledger as books
from .ledger import Ledger
from .target import KINDS, RELAY

CHUNK = 1 << 20
SHOWN_MAX = 10


def table(value: Callable[[int], int]) -> bytes:
    """A table for `bytes.translate`."""
    return bytes(value(byte) for byte in range(256))


def is_in(state: int) -> bytes:
    """The table that marks the `send`s in a state."""
    return table(lambda byte: byte & books.STATE_MASK == state)


RETURNED, BEGUN = is_in(books.RETURNED), is_in(books.BEGUN)
NOT_SENT = table(lambda byte: byte & books.STATE_MASK not in (books.BEGUN, books.RETURNED))
GIVEN_UP = table(lambda byte: byte & books.GIVEN_UP != 0)
EXPECTED = table(lambda byte: byte & books.STATE_MASK == books.RETURNED and not byte & books.GIVEN_UP)
RELAYING = table(lambda byte: byte >> books.KIND_SHIFT & books.KIND_MASK == RELAY)
ANY, NONE = table(lambda byte: byte != 0), table(lambda byte: byte == 0)
REDELIVERED = table(lambda byte: byte & ~1 != 0)
HANDLINGS = table(int.bit_count)
MORE = table(lambda byte: byte > 1)


@dataclass
class Verdict:
    """What was found. `problems`: what must not be, in words; nothing in it, nothing wrong."""

    sent: int = 0
    unsure: int = 0
    handled: int = 0
    redelivered: int = 0
    duplicates: int = 0
    given_up: int = 0
    lost: int = 0
    twice: int = 0
    disorder: int = 0
    damaged: int = 0
    never_sent: int = 0
    bits_lost: int = 0
    problems: list[str] = field(default_factory=list)


def both(*masks: bytes) -> bytes:
    """The bytes that are 1 in each of the masks."""
    found = -1
    for mask in masks:
        found &= int.from_bytes(mask, "little")
    return found.to_bytes(len(masks[0]), "little")


def places(mask: bytes) -> Iterator[int]:
    """Where a mask is 1."""
    at = mask.find(1)
    while at >= 0:
        yield at
        at = mask.find(1, at + 1)


def check(ledger: Ledger) -> Verdict:
    """Reads all the books."""
    found = Verdict()
    lost: list[str] = []
    strange: list[str] = []
    for seat in range(ledger.seats):
        for first in range(1, ledger.number(seat) + 1, CHUNK):
            check_events(ledger, found, seat, first, lost, strange)
        check_bits(ledger, found, seat)
    found.problems += some("lost", found.lost, lost)
    found.problems += some("handled but never sent", found.never_sent, strange)
    for name, what in (("twice", books.TWICE), ("disorder", books.DISORDER), ("damaged", books.DAMAGED)):
        setattr(found, name, ledger.total(what))
    words = ledger.words
    for vcore in range(ledger.vcores):
        at = ledger.vcore(vcore)
        for what, text in (
            (books.TWICE, "handled twice without a death between"),
            (books.DISORDER, "handled out of order"),
            (books.DAMAGED, "damaged on the way"),
        ):
            if count := words[at + what]:
                last = f"seat {words[at + books.BAD_SEAT]} number {words[at + books.BAD_NUMBER]}"
                found.problems.append(f"vcore {vcore}: {count} event(s) {text}; the last bad one: {last}")
    return found


def some(what: str, count: int, shown: list[str]) -> list[str]:
    """One line about `count` events, if there are any."""
    more = f" and {count - len(shown)} more" if count > len(shown) else ""
    return [f"{count} event(s) {what}: {', '.join(shown)}{more}"] if count else []


def check_events(ledger: Ledger, found: Verdict, seat: int, first: int, lost: list[str], strange: list[str]) -> None:
    """The events of a seat from `first` on, a chunk of them."""
    end = min(first + CHUNK, ledger.number(seat) + 1)
    sends, handlings, relays = (
        bytes(ledger.bytes[at + first : at + end])
        for at in (ledger.sends(seat), ledger.handlings(seat), ledger.relays(seat))
    )
    handled = handlings.translate(ANY)
    found.sent += sends.translate(RETURNED).count(1)
    found.unsure += sends.translate(BEGUN).count(1)
    found.handled += handled.count(1)
    found.redelivered += handlings.translate(REDELIVERED).count(1)
    times = handlings.translate(HANDLINGS)
    found.duplicates += sum(times.count(n) * (n - 1) for n in range(2, 9))
    found.given_up += sends.translate(GIVEN_UP).count(1)
    gone = both(sends.translate(EXPECTED), handlings.translate(NONE))
    unrelayed = both(sends.translate(RELAYING), handled, relays.translate(NONE))
    unsent = both(sends.translate(NOT_SENT), handled)
    found.lost += gone.count(1) + unrelayed.count(1)
    found.never_sent += unsent.count(1)
    for mask, what, into in ((gone, "", lost), (unrelayed, " in its second hop", lost), (unsent, "", strange)):
        for at in places(mask):
            if len(into) >= SHOWN_MAX:
                break
            into.append(f"seat {seat} number {first + at} ({kind_name(sends[at])}){what}")


def kind_name(entry: int) -> str:
    """The kind of event that an entry is about."""
    kind = entry >> books.KIND_SHIFT & books.KIND_MASK
    return KINDS[kind] if kind < len(KINDS) else f"kind {kind}"


def check_bits(ledger: Ledger, found: Verdict, seat: int) -> None:
    """After a bit was set somebody has looked what for."""
    answered = ledger.words[ledger.seat(seat) + books.ANSWERED]
    seen = max(ledger.words[ledger.seen(vcore, seat)] for vcore in range(ledger.vcores))
    if seen < answered:
        found.bits_lost += 1
        found.problems.append(f"seat {seat}: its bit number {answered} was set, and handlers have seen {seen} only")


def check_counts(ledger: Ledger) -> tuple[int, int, int]:
    """Of books in which each handling is counted: how many events were sent, lost, and handled more than once."""
    sent = lost = twice = 0
    for seat in range(ledger.seats):
        count = ledger.number(seat)
        sends, handlings = (
            bytes(ledger.bytes[at + 1 : at + 1 + count]) for at in (ledger.sends(seat), ledger.handlings(seat))
        )
        returned = sends.translate(RETURNED)
        sent += returned.count(1)
        lost += both(returned, handlings.translate(NONE)).count(1)
        twice += handlings.translate(MORE).count(1)
    return sent, lost, twice
