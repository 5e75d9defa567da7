"""What was sent and what was handled, in memory that all processes of a sweep share, and that no death empties."""

from __future__ import annotations

import mmap
import struct
from typing import Any

IDS = 256
BEGUN, RETURNED = 1, 2
_SENT, _HANDLED, _VICTIM, _TIMES = 0, IDS, 2 * IDS, 3 * IDS
_BITS_SENT, _BITS_OWED, _BITS_HANDLED, _TORN = 1024, 1025, 1026, 1027
_ORDER = 1040
_TEXT = 2048
SIZE = 8192
_PATTERN = bytes(range(251)) * 1100


def content(number: int, size: int) -> bytes:
    """The payload of the event with this number."""
    return _PATTERN[number : number + size]


def arguments(number: int, size: int) -> dict[str, int]:
    """Its arguments: such that a mixture of two events would show."""
    return {"arg1": number, "arg2": size, "arg3": number * 0x10001, "arg4": number}


class Ledger:
    """One byte for each event's number, 1 to 255. Numbers of one sender rise."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SIZE)

    def clear(self) -> None:
        self.memory[:] = bytes(SIZE)

    # ---- written by senders and handlers -----------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        self.memory[_SENT + number] = BEGUN

    def returned(self, number: int) -> None:
        self.memory[_SENT + number] = RETURNED

    def take_back(self, number: int) -> None:
        """Its send has raised: it was never sent."""
        self.memory[_SENT + number] = 0

    def bit_begun(self) -> int:
        """What `bit_returned` wants to know."""
        self.memory[_BITS_SENT] = 1
        return self.memory[_BITS_HANDLED]

    def bit_returned(self, before: int) -> None:
        """A bit is owed from now on until it is handled, unless it was while the sender was still at it (or stopped): a bit
        that was set after that look stays set, and is found at the end."""
        if self.memory[_BITS_HANDLED] == before:
            self.memory[_BITS_OWED] = 1

    def handle(self, ev: Any, victim: bool) -> None:
        """What every handler does: compares the event with what was sent, and writes it down."""
        if ev.is_bit:
            self.memory[_BITS_OWED] = 0
            self.memory[_BITS_HANDLED] += 1
            return
        number, size, data = ev.arg1, ev.arg2, bytes(ev.payload)
        if number:
            given = {"arg1": number, "arg2": size, "arg3": ev.arg3, "arg4": ev.arg4}
            whole = number < IDS and given == arguments(number, size) and data == content(number, size)
        else:  # one of `send_many`: no arguments, and its number in each byte
            number = data[0] if data else 0
            whole = data == bytes([number]) * len(data) and not ev.arg2 | ev.arg3 | ev.arg4
        if not whole or not self.memory[_SENT + number]:
            self.memory[_TORN] = 1
            return
        self.memory[(_VICTIM if victim else _HANDLED) + number] += 1
        self.memory[_TIMES + number] = ev.redeliveries
        if not ev.redelivered:
            count = self.memory[_ORDER]
            self.memory[_ORDER] = count + 1
            self.memory[_ORDER + 1 + count] = number

    def pass_over(self, first: int, count: int) -> None:
        """The victim's handler has had these events, and did not look at them."""
        for number in range(first, first + count):
            self.memory[_VICTIM + number] += 1

    def say(self, text: str) -> None:
        """What went wrong in a victim."""
        data = text.encode()[-(SIZE - _TEXT - 4) :]
        struct.pack_into("I", self.memory, _TEXT, len(data))
        self.memory[_TEXT + 4 : _TEXT + 4 + len(data)] = data

    # ---- read by the server ------------------------------------------------------------------------------------------

    @property
    def said(self) -> str:
        size = struct.unpack_from("I", self.memory, _TEXT)[0]
        return self.memory[_TEXT + 4 : _TEXT + 4 + size].decode(errors="replace")

    @property
    def torn(self) -> bool:
        """A handler was given what nobody sent."""
        return bool(self.memory[_TORN])

    @property
    def bit_owed(self) -> bool:
        return bool(self.memory[_BITS_OWED])

    @property
    def bit_invented(self) -> bool:
        return bool(self.memory[_BITS_HANDLED] and not self.memory[_BITS_SENT])

    def sent(self, state: int = BEGUN) -> list[int]:
        """The events that somebody began to send, or those whose send has returned."""
        return [number for number in range(IDS) if self.memory[_SENT + number] >= state]

    def handled(self, number: int) -> int:
        """How often the others have handled an event."""
        return self.memory[_HANDLED + number]

    def by_victim(self, number: int) -> int:
        """How often the victim has begun to."""
        return self.memory[_VICTIM + number]

    def times(self, number: int) -> int:
        """How many deaths it said that it had seen, when it was handled last."""
        return self.memory[_TIMES + number]

    def lost(self) -> list[int]:
        """Events whose send has returned, and that nobody has handled."""
        return [n for n in self.sent(RETURNED) if not self.handled(n) and not self.by_victim(n)]

    def order(self) -> list[int]:
        """All that was handled, but redeliveries, in order."""
        count = self.memory[_ORDER]
        return list(self.memory[_ORDER + 1 : _ORDER + 1 + count])
