"""Events that vcores have died with: what becomes of them, and the dead letters that some of them end as.

Whoever settles a death makes a message that was in the dead hands READY again and counts the death in its word
(`recover_slot`). The living vcore that takes it next asks what its queue says (`verdict`): run the handler again, make it a
dead letter, or be done with it and say so.

A dead letter is a message in the last mailbox, which no vcore looks at: a copy with queue, type, arguments and payload (in
a block of its own), the number of deaths, and the mailbox that it was taken from. READY first, then the message is DONE:
died in between, the message is made a dead letter once more. Two letters of one event, never none.

Whoever re-sends or discards a letter takes it as a vcore takes a message, TAKEN with its name; it sends, then the letter is
DONE. Died in between, the letter is READY again as soon as anybody settles that mailbox, and may be sent twice.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..kern.arena import block_capacity, block_data, free_block, name_block, own_block, return_block
    from ..kern.const import (
        ABSENT,
        AS_SENT,
        CORRUPT,
        DONE,
        EVENT_SPAM_PUBLIC,
        EVENT_VCORE_PRIVATE,
        EVQ_FLAGS,
        EVQ_MAX_REDELIVERIES,
        EVQ_ON_DEATH,
        GEN_MASK,
        GONE,
        INLINE_MAX,
        NO_VCORE,
        OK,
        ON_DEATH_DEAD_LETTER,
        ON_DEATH_REDELIVER,
        ON_DEATH_REPORT,
        PAGE_MASK,
        READY,
        REDELIVERIES_USUAL,
        SL_ARG1,
        SL_ARG2,
        SL_ARG3,
        SL_ARG4,
        SL_BLOCK,
        SL_FROM,
        SL_INLINE,
        SL_LEN,
        SL_QUEUE,
        SL_TYPE,
        SL_WORD,
        TAKEN,
    )
    from ..kern.event import post_vcore_event, put_payload, send_event
    from ..kern.layout import Msg, Seg, count, dead_mbox, evq_at, is_real, word
    from ..kern.pages import tell_room
    from ..kern.ucq import advance_head, claim_slot, fill_slot, give_back, slot_at, tell_mbox_room
    from ..machine.door import bytes_at, cas64, ld16, ld32, ld64, lda64, st16, str64
    from .mbox import put_back


def deaths_of(s: Seg, at: int) -> int:
    """How many vcores have died with the message in the slot at `at`; 15 stands for more."""
    return (ld64(s.mem, at + SL_WORD) >> 4) & 15


def verdict(s: Seg, queue: int, deaths: int) -> int:
    """What becomes of a message of queue `queue - 1` (0: mail to a vcore) that so many vcores have died with: an ON_DEATH
    number, REDELIVER if its handler is to run again."""
    most = REDELIVERIES_USUAL
    if queue != 0 and queue <= s.max_queues:
        evq = evq_at(s, queue - 1)
        policy = ld32(s.mem, evq + EVQ_ON_DEATH)
        if policy == ON_DEATH_DEAD_LETTER or policy == ON_DEATH_REPORT:
            return policy
        most = ld32(s.mem, evq + EVQ_MAX_REDELIVERIES)
    if deaths > most:
        return ON_DEATH_DEAD_LETTER
    return ON_DEATH_REDELIVER


def read_message(s: Seg, at: int, msg: Msg) -> int:
    """Reads the message in the slot at `at`, which this actor has TAKEN, into `msg`, to be sent once more: a payload with a
    block is copied into another one. OK, FULL, or CORRUPT: no sender writes such a slot."""
    msg.ev_type = ld16(s.mem, at + SL_TYPE)
    msg.arg1 = ld16(s.mem, at + SL_ARG1)
    msg.arg2 = ld32(s.mem, at + SL_ARG2)
    msg.arg3 = ld64(s.mem, at + SL_ARG3)
    msg.arg4 = ld64(s.mem, at + SL_ARG4)
    msg.queue = ld16(s.mem, at + SL_QUEUE)
    msg.length = ld32(s.mem, at + SL_LEN)
    msg.block = 0
    if msg.length <= INLINE_MAX:
        msg.src = bytes_at(s.mem, at + SL_INLINE, msg.length)
        return OK
    held = ld64(s.mem, at + SL_BLOCK)
    capacity = block_capacity(s, held)
    if capacity < msg.length or not own_block(s, held):
        return CORRUPT
    msg.src = bytes_at(s.mem, block_data(s, held, capacity), msg.length)
    return put_payload(s, msg)


def post_letter(s: Seg, mbox: int, at: int, msg: Msg) -> int:
    """Makes a dead letter of the message in the slot at `at`, which this actor has TAKEN from a mailbox; `msg` is room for
    it. The caller then makes the message DONE. OK, or why there is no letter: FULL, BUSY, CORRUPT."""
    status = read_message(s, at, msg)
    if status != OK:
        return status
    where = claim_slot(s, dead_mbox(s))
    if where == 0:
        status = s.why
        # Senders are told, holders are not: they need a slot, too, and would only take turns with us.
        if msg.block != 0 and return_block(s, msg.block):
            tell_room(s)
        return status
    to = slot_at(s, where)
    if msg.block != 0:
        name_block(s, msg.block, where)
    fill_slot(s, to, msg)
    st16(s.mem, to + SL_FROM, mbox + 1)
    # A release: the letter is whole for whoever sees it, and it is there before the message is DONE.
    str64(s.mem, to + SL_WORD, word(READY | (deaths_of(s, at) << 4), where >> 32, s.me))
    return OK


def settle_message(s: Seg, mbox: int, where: int) -> None:
    """TAKEN by this actor -> DONE: the message is a dead letter, is sent anew, or is not wanted. Its block after it: died in
    between, the scavenger finds a block of a dead owner whose slot lets it go."""
    at = slot_at(s, where)
    held = 0
    if ld32(s.mem, at + SL_LEN) > INLINE_MAX:
        held = ld64(s.mem, at + SL_BLOCK)
        if block_capacity(s, held) == 0 or not own_block(s, held):
            held = 0
    str64(s.mem, at + SL_WORD, word(DONE, where >> 32, 0))
    if held != 0:
        free_block(s, held)
    if not advance_head(s, mbox):
        tell_mbox_room(s, mbox)  # as in `put_done`
    give_back(s, mbox, where & PAGE_MASK, where >> 32)  # letters are settled in any order


def take_letter(s: Seg, where: int) -> bool:
    """READY -> TAKEN by this actor. False if the letter is there no more, or in other hands."""
    i = (where >> 20) & 0xFFF
    if (where & PAGE_MASK) == 0 or not is_real(s, where & PAGE_MASK) or i >= s.page_slots:
        return False
    at = slot_at(s, where)
    w = lda64(s.mem, at + SL_WORD)
    if (w & 15) != READY or ((w >> 8) & GEN_MASK) != (where >> 32):
        return False
    return cas64(s.mem, at + SL_WORD, w, word(TAKEN | (w & 0xF0), where >> 32, s.me))


def send_letter(s: Seg, at: int, msg: Msg) -> int:
    """Sends what the letter in the slot at `at`, which this actor has TAKEN, was: to its queue, or to the mailbox of the
    vcore that it was for. The result is that of `send_event`."""
    status = read_message(s, at, msg)
    if status != OK:
        return status
    origin = ld16(s.mem, at + SL_FROM)
    vcoreid = NO_VCORE
    if origin != 0 and origin <= 2 * s.max_vcores:
        vcoreid = (origin - 1) // 2
    if msg.queue == 0:
        status = post_vcore_event(s, msg, vcoreid, EVENT_VCORE_PRIVATE if (origin & 1) == 0 else 0)
    elif msg.block != 0 and msg.queue <= s.max_queues and spams(s, msg.queue - 1):
        status = CORRUPT  # copies of a spammed message would share the block
    else:
        status = send_event(s, msg.queue - 1, msg, vcoreid)
    # GONE may come after the message is there, and then its slot holds the block.
    if status != OK and status != GONE and msg.block != 0:
        free_block(s, msg.block)
    return status


def spams(s: Seg, queue: int) -> bool:
    """Whether a queue's messages may arrive more than once."""
    return (ld32(s.mem, evq_at(s, queue) + EVQ_FLAGS) & EVENT_SPAM_PUBLIC) != 0


def resend_letter(s: Seg, where: int, msg: Msg) -> int:
    """Sends a dead letter anew, with no deaths; then the letter is gone. ABSENT if it is there no more; any other result
    but OK: it is still there."""
    if not take_letter(s, where):
        return ABSENT
    status = send_letter(s, slot_at(s, where), msg)
    if status != OK:
        put_back(s, dead_mbox(s), where)
        return status
    settle_message(s, dead_mbox(s), where)
    count(s, AS_SENT, 1)
    return OK


def discard_letter(s: Seg, where: int) -> int:
    """Throws a dead letter away. ABSENT if it is there no more."""
    if not take_letter(s, where):
        return ABSENT
    settle_message(s, dead_mbox(s), where)
    return OK
