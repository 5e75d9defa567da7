"""What lies in a mailbox, read from the file, as `inspect` reads it: nothing is taken, and no vcore is held up.

What is listed was there at some moment of the walk. Who wants a message takes its slot by compare-and-swap: a place names
its page's generation, so it never leads to another message.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from ..kern import const
from ..kern.layout import mbox_at, onward, page_at, place
from ..kern.ucq import slot_at
from .segment import Segment

WALK_TRIES = 4
"""Walks over a mailbox while its pages are turned, before the last one is taken for good."""


@dataclass(frozen=True)
class Message:
    """One message: `where` it is, its slot's `word`, `arg3`, and its running number in the mailbox, counted from 1."""

    number: int
    where: int
    word: int
    arg3: int


def messages(segment: Segment, mbox: int, arg3: int | None = None) -> list[Message]:
    """The messages of a mailbox, waiting or in somebody's hands, in order; those with this `arg3`."""
    for _ in range(WALK_TRIES):
        found, whole = _walk(segment, mbox, arg3)
        if whole:
            break
    return found


def _walk(segment: Segment, mbox: int, arg3: int | None) -> tuple[list[Message], bool]:
    """One walk over the mailbox, and whether its pages stayed in place."""
    seg = segment.seg
    found: list[Message] = []
    here = segment.u64(mbox_at(seg, mbox) + const.MB_HEAD)
    first, stride = here >> 20 & 0xFFF, const.SLOT_SIZE // 8
    for _ in range(seg.nr_pages):
        page, gen = here & const.PAGE_MASK, here >> 32
        if not 0 < page <= seg.nr_pages:
            break
        data = memoryview(os.pread(segment.file, seg.page_size, page_at(seg, page))).cast("Q")
        if data[const.PG_WORD // 8] >> 8 & const.GEN_MASK != gen:
            return found, False
        before = (data[const.PG_SEQ // 8] - 1) * seg.page_slots
        words = data[const.PAGE_HEADER // 8 :: stride].tolist()
        args = data[(const.PAGE_HEADER + const.SL_ARG3) // 8 :: stride].tolist()
        for i in range(first, seg.page_slots) if arg3 is None or arg3 in args else ():
            if arg3 in (None, args[i]) and _is_message(words[i], gen):
                found.append(Message(before + i + 1, place(page, i, gen), words[i], args[i]))
        here, first = onward(data[const.PG_NEXT // 8]), 0
    return found, True


def _is_message(word: int, gen: int) -> bool:
    """Whether a slot with this word holds a message; one in somebody's hands is one until it is done."""
    return word & 15 in (const.READY, const.TAKEN) and word >> 8 & const.GEN_MASK == gen


def field(kind: str, slot: bytes, at: int) -> int:
    """A field of a slot, by its offset; `kind` as `struct` names it."""
    value: int = struct.unpack_from(kind, slot, at)[0]
    return value


def slot_of(segment: Segment, where: int) -> bytes | None:
    """A message's slot; None if it is there no more. Read twice: what is read after READY was seen is whole."""
    slot = b""
    for _ in range(2):
        slot = os.pread(segment.file, const.SLOT_SIZE, slot_at(segment.seg, where))
        if len(slot) < const.SLOT_SIZE or not _is_message(field("Q", slot, const.SL_WORD), where >> 32):
            return None
    return slot
