"""Dead letters: listing, re-sending and discarding them. What becomes one is decided in `parlib/dead`.

They lie in the segment's last mailbox, and stay there over restarts until somebody re-sends or discards them. A letter's
id counts up from 1 over the segment's life: its page's number in the mailbox and its slot tell it. Listing reads the file,
as `inspect` does, and takes nothing; each letter that it returns was whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..kern import const
from ..kern.arena import block_capacity, block_data
from ..kern.layout import Msg, dead_mbox, evq_at
from ..parlib.dead import discard_letter, resend_letter
from ..parlib.mbox import recover_mbox
from .handle import Handle
from .messages import field, messages, slot_of
from .segment import Segment


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
        slot = slot_of(handle.segment, where)
        if slot is None or (wanted is not None and field("H", slot, const.SL_QUEUE) != wanted):
            continue
        held = _payload(handle.segment, slot) if payload else b""
        # Still there: then the block was not anybody else's while it was read.
        if slot_of(handle.segment, where) is not None:
            found.append(_letter(handle, number, slot, held))
    return found


def resend_letters(handle: Handle, letters: Iterable[DeadLetter | int] | None) -> int:
    """Sends dead letters again, with no deaths counted; all that are there now if `letters` is None. Returns how many;
    those that are there no more are left out. Errors as for `Queue.send`; `error.sent` letters went before."""
    seg, msg, sent = handle.thread().seg, Msg(), 0
    for where in _picked(handle, letters):
        slot = slot_of(handle.segment, where)
        if slot is None:
            continue
        queue = field("H", slot, const.SL_QUEUE) - 1
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
    return {message.number: message.where for message in messages(segment, dead_mbox(segment.seg))}


def _payload(segment: Segment, slot: bytes) -> bytes:
    size = field("I", slot, const.SL_LEN)
    if size <= const.INLINE_MAX:
        return slot[const.SL_INLINE : const.SL_INLINE + size]
    block = field("Q", slot, const.SL_BLOCK)
    capacity = block_capacity(segment.seg, block)
    return os.pread(segment.file, size, block_data(segment.seg, block, capacity)) if capacity >= size else b""


def _letter(handle: Handle, number: int, slot: bytes, payload: bytes) -> DeadLetter:
    queue, origin = field("H", slot, const.SL_QUEUE), field("H", slot, const.SL_FROM)
    return DeadLetter(
        id=number,
        queue=handle.queue_name(queue),
        vcore=(origin - 1) // 2 if queue == 0 else None,
        private=queue == 0 and origin % 2 == 0,
        type=handle.type_name(field("H", slot, const.SL_TYPE)),
        arg1=field("H", slot, const.SL_ARG1),
        arg2=field("I", slot, const.SL_ARG2),
        arg3=field("Q", slot, const.SL_ARG3),
        arg4=field("Q", slot, const.SL_ARG4),
        size=field("I", slot, const.SL_LEN),
        payload=payload,
        deaths=field("Q", slot, const.SL_WORD) >> 4 & 15,
    )


def _check_flags(handle: Handle, queue: int, slot: bytes) -> None:
    """What the queue is now may not carry what it carried when the letter was sent."""
    if not 0 <= queue < handle.segment.geometry.max_queues:
        return
    flags = handle.segment.u32(evq_at(handle.segment.seg, queue) + const.EVQ_FLAGS)
    size = field("I", slot, const.SL_LEN)
    if flags & const.EVENT_NOMSG and (size or any(slot[const.SL_ARG1 : const.SL_LEN])):
        handle.fail_nomsg()
    if flags & const.EVENT_SPAM_PUBLIC and size > const.INLINE_MAX:
        handle.fail_spam(size)
