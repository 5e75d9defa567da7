"""Dead letters: listing, re-sending and discarding them. What becomes one is decided in `parlib/dead`.

They lie in the segment's last mailbox, and stay there over restarts until somebody re-sends or discards them. A letter's
id counts up from 1 over the segment's life: its page's number in the mailbox and its slot tell it. Listing reads the file,
as `inspect` does, and takes nothing; each letter that it returns was whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from ..kern import const
from ..kern.arena import block_capacity, block_data
from ..kern.layout import Msg, dead_mbox, evq_at, mbox_at, onward, page_at, place
from ..kern.ucq import slot_at
from ..parlib.dead import discard_letter, resend_letter
from ..parlib.mbox import recover_mbox
from .handle import Handle
from .segment import Segment

WALK_TRIES = 4
"""Walks over the mailbox while its pages are turned, before the last one is taken for good."""


@dataclass(frozen=True)
class DeadLetter:
    """An event that is not delivered any more, because workers have died with it in their hands (G4).

    `id` its number, never used again in this segment; `queue` the queue that it was sent to, or None for mail to the vcore
    `vcore` (`private` or public); `type`, `arg1` to `arg4` and `payload` as they were sent; `size` the payload's bytes, also
    where the payload itself was not asked for; `deaths` how many workers died with it.
    """

    id: int
    queue: str | None
    vcore: int | None
    private: bool
    type: str
    arg1: int
    arg2: int
    arg3: int
    arg4: int
    size: int
    payload: bytes
    deaths: int


def count_letters(segment: Segment) -> int:
    """How many dead letters there are."""
    return len(_places(segment))


def read_letters(handle: Handle, queue: str | None = None, *, payload: bool = True) -> list[DeadLetter]:
    """The dead letters, oldest first; of one queue if it is named. NoSuchQueue."""
    wanted = None if queue is None else handle.queue_number(queue) + 1
    found = []
    for number, where in _places(handle.segment).items():
        slot = _slot(handle.segment, where)
        if slot is None or (wanted is not None and _field("H", slot, const.SL_QUEUE) != wanted):
            continue
        held = _payload(handle.segment, slot) if payload else b""
        # Still there: then the block was not anybody else's while it was read.
        if _slot(handle.segment, where) is not None:
            found.append(_letter(handle, number, slot, held))
    return found


def resend_letters(handle: Handle, letters: Iterable[DeadLetter | int] | None) -> int:
    """Sends dead letters again, with no deaths counted; all that are there now if `letters` is None. Returns how many;
    those that are there no more are left out. Errors as for `Queue.send`; `error.sent` letters went before."""
    seg, msg, sent = handle.thread().seg, Msg(), 0
    for where in _picked(handle, letters):
        slot = _slot(handle.segment, where)
        if slot is None:
            continue
        queue = _field("H", slot, const.SL_QUEUE) - 1
        try:
            _check_flags(handle, queue, slot)
            status = resend_letter(seg, where, msg)
            if status not in (const.OK, const.ABSENT):
                handle.fail(status, queue if queue >= 0 else const.NO_VCORE)
        except Exception as error:
            handle.note_sent(error, sent)
            raise
        sent += status == const.OK
    return sent


def discard_letters(handle: Handle, letters: Iterable[DeadLetter | int] | None) -> int:
    """Throws dead letters away; all that are there now if `letters` is None. Returns how many."""
    seg = handle.thread().seg
    return sum(discard_letter(seg, where) == const.OK for where in _picked(handle, letters))


def _picked(handle: Handle, letters: Iterable[DeadLetter | int] | None) -> list[int]:
    """The places of letters, as they are now: a letter that dies again is not sent a second time."""
    seg = handle.thread().seg
    recover_mbox(seg, dead_mbox(seg))  # what a dead re-sender had in its hands
    there = _places(handle.segment)
    if letters is None:
        return list(there.values())
    wanted = [_id(letter) for letter in letters]
    return [there[number] for number in dict.fromkeys(wanted) if number in there]


def _id(letter: object) -> int:
    number = letter.id if isinstance(letter, DeadLetter) else letter
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"dead letter {letter!r} must be a DeadLetter or its id, not {type(letter).__name__}")
    return number


def _places(segment: Segment) -> dict[int, int]:
    """Where the letters are, by id."""
    for _ in range(WALK_TRIES):
        found, whole = _walk(segment)
        if whole:
            break
    return found


def _walk(segment: Segment) -> tuple[dict[int, int], bool]:
    """One walk over the mailbox, and whether its pages stayed in place."""
    seg = segment.seg
    found: dict[int, int] = {}
    here = segment.u64(mbox_at(seg, dead_mbox(seg)) + const.MB_HEAD)
    first = here >> 20 & 0xFFF
    for _ in range(seg.nr_pages):
        page, gen = here & const.PAGE_MASK, here >> 32
        if not 0 < page <= seg.nr_pages:
            break
        data = memoryview(os.pread(segment.file, seg.page_size, page_at(seg, page))).cast("Q")
        if data[const.PG_WORD // 8] >> 8 & const.GEN_MASK != gen:
            return found, False
        before = (data[const.PG_SEQ // 8] - 1) * seg.page_slots
        words = data[const.PAGE_HEADER // 8 :: const.SLOT_SIZE // 8].tolist()
        for i in range(first, seg.page_slots):
            if _is_letter(words[i], gen):
                found[before + i + 1] = place(page, i, gen)
        here, first = onward(data[const.PG_NEXT // 8]), 0
    return found, True


def _is_letter(word: int, gen: int) -> bool:
    """Whether a slot with this word holds a letter; one in somebody's hands is one until it is sent."""
    return word & 15 in (const.READY, const.TAKEN) and word >> 8 & const.GEN_MASK == gen


def _field(kind: str, slot: bytes, at: int) -> int:
    value: int = struct.unpack_from(kind, slot, at)[0]
    return value


def _slot(segment: Segment, where: int) -> bytes | None:
    """A letter's slot; None if it is there no more. Read twice: what is read after READY was seen is whole."""
    slot = b""
    for _ in range(2):
        slot = os.pread(segment.file, const.SLOT_SIZE, slot_at(segment.seg, where))
        if len(slot) < const.SLOT_SIZE or not _is_letter(_field("Q", slot, const.SL_WORD), where >> 32):
            return None
    return slot


def _payload(segment: Segment, slot: bytes) -> bytes:
    size = _field("I", slot, const.SL_LEN)
    if size <= const.INLINE_MAX:
        return slot[const.SL_INLINE : const.SL_INLINE + size]
    block = _field("Q", slot, const.SL_BLOCK)
    capacity = block_capacity(segment.seg, block)
    return os.pread(segment.file, size, block_data(segment.seg, block, capacity)) if capacity >= size else b""


def _letter(handle: Handle, number: int, slot: bytes, payload: bytes) -> DeadLetter:
    queue, origin = _field("H", slot, const.SL_QUEUE), _field("H", slot, const.SL_FROM)
    return DeadLetter(
        id=number,
        queue=handle.queue_name(queue),
        vcore=(origin - 1) // 2 if queue == 0 else None,
        private=queue == 0 and origin % 2 == 0,
        type=handle.type_name(_field("H", slot, const.SL_TYPE)),
        arg1=_field("H", slot, const.SL_ARG1),
        arg2=_field("I", slot, const.SL_ARG2),
        arg3=_field("Q", slot, const.SL_ARG3),
        arg4=_field("Q", slot, const.SL_ARG4),
        size=_field("I", slot, const.SL_LEN),
        payload=payload,
        deaths=_field("Q", slot, const.SL_WORD) >> 4 & 15,
    )


def _check_flags(handle: Handle, queue: int, slot: bytes) -> None:
    """What the queue is now may not carry what it carried when the letter was sent."""
    if not 0 <= queue < handle.segment.geometry.max_queues:
        return
    flags = handle.segment.u32(evq_at(handle.segment.seg, queue) + const.EVQ_FLAGS)
    size = _field("I", slot, const.SL_LEN)
    if flags & const.EVENT_NOMSG and (size or any(slot[const.SL_ARG1 : const.SL_LEN])):
        handle.fail_nomsg()
    if flags & const.EVENT_SPAM_PUBLIC and size > const.INLINE_MAX:
        handle.fail_spam(size)
