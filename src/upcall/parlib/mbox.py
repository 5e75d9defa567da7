"""The mailbox queue, consumer side: a cursor per consumer, claims in the slots, nobody waits for a slow or dead sender.

A cursor is private: where this consumer has got to. It walks the slots in order and stops at the first EMPTY one. What it
meets on the way:

    READY    taken by compare-and-swap, with our name; if that fails another consumer has it
    CLAIMED  a sender is writing, or was stopped or killed there: passed over, and remembered
    TAKEN, DONE   somebody else's, or history

Order per sender: before a READY slot is taken, every slot passed over is looked at *again*. A sender finishes one message
before it claims the next, so once a later message of its is READY, the earlier one is READY too, and is found by that
second look; messages of other senders are taken early, which nobody promised otherwise. There is room to remember one slot
for each sender that can be attached: however many are stopped, they hide nothing. What the dead have claimed is settled
when it gets much.

A slot that becomes READY again (its taker died) lies behind most cursors: `MB_RESCAN` rises, and every cursor starts
again from the head.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..kern.const import (
        CLAIMED,
        DONE,
        GEN_MASK,
        MAX_SLOTS,
        MB_BITMAP,
        MB_BITMAP_WORDS,
        MB_CHECK_BITS,
        MB_HEAD,
        MB_LIMIT,
        MB_RESCAN,
        MB_TAIL,
        MB_UNLINKED,
        NOT_SEEN,
        PAGE_HEADER,
        PAGE_MASK,
        PG_NEXT,
        PI_DRAIN_SEQ,
        PI_DRAINERS,
        READY,
        SKIP_ASK,
        SL_QUEUE,
        SL_TYPE,
        SL_WORD,
        SLOT_SIZE,
        TAKEN,
        WALK_MAX,
    )
    from ..kern.layout import Seg, dead_mbox, is_real, mbox_at, onward, page_at, place, word
    from ..kern.pages import has_left, link_page, name_is_dead, page_generation
    from ..kern.ucq import (
        advance_head,
        count_open,
        empty_word,
        give_back,
        slot_at,
        slot_number,
        tell_mbox_room,
        tidy_mbox,
    )
    from ..machine.door import cas64, faa32, faa64, futex_wake, ld16, ld32, ld64, lda64, mb, rmb, st32, str64


class Cursor:
    """One consumer's position in one mailbox. `watch_at` and `watch_word`: the word that changes when there is news.
    `asks`: so many passed over, and it asks who of their senders lives. At the last restart `started` was the head, and
    `unlinked` pages had been given back behind it; `walked`: pages since then, or since the last message or empty slot."""

    def __init__(self, mbox):
        self.mbox = mbox
        self.page = 0
        self.gen = 0
        self.i = 0
        self.rescan = 0
        self.limited = 0
        self.nskipped = 0
        self.asks = SKIP_ASK
        self.taken = 0
        self.watch_at = 0
        self.watch_word = 0
        self.started = 0
        self.unlinked = 0
        self.walked = 0
        if not cython.compiled:
            self.skipped = {}


def restart(s: Seg, cur: Cursor) -> bool:
    """To the mailbox's head. False if the mailbox has never been used."""
    at = mbox_at(s, cur.mbox)
    cur.rescan = lda64(s.mem, at + MB_RESCAN)
    cur.limited = ld64(s.mem, at + MB_LIMIT)
    cur.unlinked = lda64(s.mem, at + MB_UNLINKED)  # before the way that may be lost; pairs with `unlink_pages`
    head = lda64(s.mem, at + MB_HEAD)
    cur.page = head & PAGE_MASK
    cur.gen = head >> 32
    cur.i = (head >> 20) & 0xFFF
    cur.nskipped = 0
    cur.started = head
    cur.walked = 0
    if cur.page == 0 or not is_real(s, cur.page) or cur.i > s.page_slots:
        cur.page = 0
        cur.watch_at = at + MB_HEAD
        cur.watch_word = head
        return False
    return True


def turn_page(s: Seg, cur: Cursor) -> bool:
    """From the end of a page to the next one. False if there is none yet. If the page has been recycled, or no end comes
    in sight, the cursor has no page any more."""
    left = cur.page
    left_gen = cur.gen
    at = page_at(s, left)
    link = lda64(s.mem, at + PG_NEXT)
    after = onward(link)
    rmb()  # the link before the word: unchanged, the link belongs to this generation (pairs with `claim_page`)
    # A page may also be retired, then claimed and given back by another: it has our generation again and an empty link of
    # the next one. An empty link of a page in place carries the page's generation.
    if page_generation(s, cur.page) != cur.gen or ((after & PAGE_MASK) == 0 and (after >> 32) != cur.gen):
        cur.page = 0
        return True
    if (after & PAGE_MASK) == 0 or not is_real(s, after & PAGE_MASK):
        cur.watch_at = at + PG_NEXT
        cur.watch_word = link
        cur.walked = 0
        return False
    cur.walked = cur.walked + 1
    if cur.walked > s.nr_pages:
        cur.page = 0  # longer than a chain can be: pages move as fast as we walk, or hostile links go round
        return True
    link_page(s, after & PAGE_MASK, after >> 32, cur.mbox)
    cur.page = after & PAGE_MASK
    cur.gen = after >> 32
    cur.i = 0
    advance_head(s, cur.mbox)
    give_back(s, cur.mbox, left, left_gen)
    return True


def take_this(s: Seg, cur: Cursor, where: int, w: int) -> int:
    """READY -> TAKEN(me). The slot's offset, or 0 if another consumer was quicker."""
    at = slot_at(s, where)
    if cas64(s.mem, at + SL_WORD, w, word(TAKEN | (w & 0xF0), where >> 32, s.me)):
        cur.taken = where
        cur.walked = 0
        return at
    return 0


def take_skipped(s: Seg, cur: Cursor) -> int:
    """Looks again at the slots that were passed over, oldest first; forgets those that are settled."""
    kept = 0
    k = 0
    got = 0
    while k < cur.nskipped:
        where = cur.skipped[k]
        w = lda64(s.mem, slot_at(s, where) + SL_WORD)
        k = k + 1
        if ((w >> 8) & GEN_MASK) != (where >> 32):
            continue
        if (w & 15) == READY and got == 0:
            got = take_this(s, cur, where, w)
        elif (w & 15) == CLAIMED or (w & 15) == READY:
            cur.skipped[kept] = where
            kept = kept + 1
    cur.nskipped = kept
    return got


def reap_skipped(s: Seg, cur: Cursor) -> int:
    """Makes claims of dead senders DONE: nothing was sent. How many. Asks the kernel: before going idle, or with many."""
    found = 0
    k = 0
    while k < cur.nskipped:
        at = slot_at(s, cur.skipped[k])
        w = lda64(s.mem, at + SL_WORD)
        if (w & 15) == CLAIMED and ((w >> 8) & GEN_MASK) == (cur.skipped[k] >> 32) and name_is_dead(s, w >> 32):
            cas64(s.mem, at + SL_WORD, w, word(DONE, (w >> 8) & GEN_MASK, 0))
            found = found + 1
        k = k + 1
    return found


def skip(s: Seg, cur: Cursor) -> bool:
    """Passes over an unfinished slot. False if there is no more room to remember it, and so none behind it can be taken."""
    if cur.nskipped >= cur.asks or cur.nskipped == MAX_SLOTS:
        # Next with more than twice as many as live: asked seldom, however many they are.
        cur.asks = SKIP_ASK + 2 * (cur.nskipped - reap_skipped(s, cur))
    if cur.nskipped == MAX_SLOTS:
        return False
    cur.skipped[cur.nskipped] = place(cur.page, cur.i, cur.gen)
    cur.nskipped = cur.nskipped + 1
    cur.i = cur.i + 1
    return True


def chain_changed(s: Seg, cur: Cursor) -> bool:
    """Whether a page has left the chain since the cursor started from the head."""
    at = mbox_at(s, cur.mbox)
    return lda64(s.mem, at + MB_HEAD) != cur.started or lda64(s.mem, at + MB_UNLINKED) != cur.unlinked


def take(s: Seg, cur: Cursor) -> int:
    """Takes the next message: the offset of its slot, now TAKEN by this actor, or 0 if there is none. Bounded: a page's
    walk, then WALK_MAX pages."""
    turns = 0
    lost = False
    # A relaxed read: a redelivery that is not seen now is announced, and then it is.
    if cur.page != 0 and ld64(s.mem, mbox_at(s, cur.mbox) + MB_RESCAN) != cur.rescan:
        cur.page = 0
    while turns < WALK_MAX:
        if cur.page == 0:
            turns = turns + 1
            # Lost on the way from this same head, and no page was given back behind it? Pages are recycled only after one
            # or the other: then the segment holds what no protocol step writes, and there is no news until that changes.
            if (lost and not chain_changed(s, cur)) or not restart(s, cur):
                return 0
        slots = page_at(s, cur.page) + PAGE_HEADER
        while cur.i < s.page_slots:
            at = slots + cur.i * SLOT_SIZE
            w = lda64(s.mem, at + SL_WORD)
            state = w & 15
            if ((w >> 8) & GEN_MASK) != cur.gen:
                if w == empty_word(cur.gen):
                    cur.watch_at = at + SL_WORD
                    cur.watch_word = w
                    cur.walked = 0
                    return take_skipped(s, cur)
                cur.page = 0
                lost = True
                break
            if state == READY:
                if cur.nskipped != 0:
                    got = take_skipped(s, cur)
                    if got != 0:
                        return got
                cur.i = cur.i + 1
                got = take_this(s, cur, place(cur.page, cur.i - 1, cur.gen), w)
                if got != 0:
                    return got
            elif state == CLAIMED:
                if not skip(s, cur):
                    got = take_skipped(s, cur)
                    if got != 0 or cur.nskipped == MAX_SLOTS:
                        cur.watch_at = at + SL_WORD
                        cur.watch_word = w
                        return got
            else:
                cur.i = cur.i + 1
        turns = turns + 1
        if cur.page != 0:
            if not turn_page(s, cur):
                return take_skipped(s, cur)
            lost = lost or cur.page == 0
    cur.watch_at = 0  # not at the end: there may be more
    return 0


def skipped_ready(s: Seg, cur: Cursor) -> bool:
    """Whether a slot that was passed over is READY."""
    k = 0
    while k < cur.nskipped:
        if (lda64(s.mem, slot_at(s, cur.skipped[k]) + SL_WORD) & 15) == READY:
            return True
        k = k + 1
    return False


def take_like(s: Seg, cur: Cursor, ev_type: int, queue: int) -> int:
    """Takes the next message as `take` does, if it is one more of this type and queue and no vcore has died with it: for
    a batch. 0: whatever comes next is left to `take`. What is not in the batch is in nobody's hands while it is handled."""
    if cur.page == 0 or ld64(s.mem, mbox_at(s, cur.mbox) + MB_RESCAN) != cur.rescan:
        return 0
    if cur.i >= s.page_slots and (not turn_page(s, cur) or cur.page == 0):
        return 0
    slots = page_at(s, cur.page) + PAGE_HEADER
    while cur.i < s.page_slots:
        at = slots + cur.i * SLOT_SIZE
        w = lda64(s.mem, at + SL_WORD)
        if ((w >> 8) & GEN_MASK) != cur.gen or (w & 15) == CLAIMED:
            return 0
        if (w & 15) == READY:
            # Contents are written before READY, and not again until the slot's next generation.
            if (w & 0xF0) != 0 or ld16(s.mem, at + SL_TYPE) != ev_type or ld16(s.mem, at + SL_QUEUE) != queue:
                return 0
            if skipped_ready(s, cur):
                return 0  # perhaps of the same sender, and earlier
            cur.i = cur.i + 1
            got = take_this(s, cur, place(cur.page, cur.i - 1, cur.gen), w)
            if got != 0:
                return got
        else:
            cur.i = cur.i + 1
    return 0


def more_waiting(s: Seg, cur: Cursor) -> bool:
    """Whether the slot after the last one taken is READY: a backlog, not a single message. One load."""
    if cur.page == 0 or cur.i >= s.page_slots:
        return False
    w = lda64(s.mem, page_at(s, cur.page) + PAGE_HEADER + cur.i * SLOT_SIZE)
    return (w & 15) == READY and ((w >> 8) & GEN_MASK) == cur.gen


def news(s: Seg, cur: Cursor) -> bool:
    """Whether a `take` may find something: the watched word has changed, or a slot passed over is READY."""
    if cur.page == 0 and chain_changed(s, cur):
        return True
    if ld64(s.mem, mbox_at(s, cur.mbox) + MB_RESCAN) != cur.rescan:
        return (lda64(s.mem, mbox_at(s, cur.mbox) + MB_HEAD) & PAGE_MASK) != 0
    if cur.page == 0:
        return False
    if cur.watch_at == 0 or lda64(s.mem, cur.watch_at) != cur.watch_word:
        return True
    return skipped_ready(s, cur)


def put_done(s: Seg, cur: Cursor, where: int) -> None:
    """TAKEN -> DONE: the handler has returned, or raised. A release: the handler's reads of the slot come before; pairs
    with the acquire in `all_done`, after which the page may be used again."""
    at = slot_at(s, where)
    str64(s.mem, at + SL_WORD, word(DONE, where >> 32, 0))
    if cur.limited != 0 and not advance_head(s, cur.mbox):
        tell_mbox_room(s, cur.mbox)  # the head stays, behind somebody who does not move; there is room all the same


def put_back(s: Seg, mbox: int, where: int) -> bool:
    """TAKEN by this actor -> READY, with as many deaths as before: whoever took it could not do what it was to do."""
    at = slot_at(s, where)
    w = lda64(s.mem, at + SL_WORD)
    if (w & 15) != TAKEN or (w >> 32) != s.me or ((w >> 8) & GEN_MASK) != (where >> 32):
        return False
    if not cas64(s.mem, at + SL_WORD, w, word(READY | (w & 0xF0), where >> 32, 0)):
        return False
    faa64(s.mem, mbox_at(s, mbox) + MB_RESCAN, 1)
    return True


def recover_slot(s: Seg, at: int, deaths: int) -> int:
    """One slot of a mailbox whose user has died: a dead sender's claim is DONE, what a dead consumer had in hand is READY
    again, with so many more deaths. 1 if it was in hand."""
    w = lda64(s.mem, at + SL_WORD)
    state = w & 15
    gen = (w >> 8) & GEN_MASK
    if (state != CLAIMED and state != TAKEN) or not name_is_dead(s, w >> 32):
        return 0
    if state == CLAIMED:
        cas64(s.mem, at + SL_WORD, w, word(DONE, gen, 0))
        return 0
    times = ((w >> 4) & 15) + deaths
    if times > 15:
        times = 15
    if cas64(s.mem, at + SL_WORD, w, word(READY | (times << 4), gen, 0)):
        return 1
    return 0


def recover_page(s: Seg, here: int, deaths: int) -> int:
    """One page of it. How many messages were in hand, or NOT_SEEN if none was but some wait to be delivered again."""
    found = 0
    again = False
    i = 0
    while i < s.page_slots:
        slot = page_at(s, here & PAGE_MASK) + PAGE_HEADER + i * SLOT_SIZE
        w = ld64(s.mem, slot + SL_WORD)
        if ((w >> 8) & GEN_MASK) == (here >> 32):
            found = found + recover_slot(s, slot, deaths)
            again = again or ((w & 15) == READY and (w & 0xF0) != 0)
        i = i + 1
    if found == 0 and again:
        return NOT_SEEN
    return found


def recover_mbox(s: Seg, mbox: int) -> int:
    """Settles what the dead have left in a mailbox; returns how many messages will be delivered again."""
    at = mbox_at(s, mbox)
    here = lda64(s.mem, at + MB_HEAD)
    if (here & PAGE_MASK) == 0 and not has_bits(s, mbox):
        return 0
    found = 0
    again = False
    pages = 0
    # Who dies re-sending a dead letter is no vcore in its handler: the letter's deaths stay as they are.
    deaths = 0 if mbox == dead_mbox(s) else 1
    while (here & PAGE_MASK) != 0 and is_real(s, here & PAGE_MASK) and pages < WALK_MAX + 2 * s.nr_pages:
        here_found = recover_page(s, here, deaths)
        again = again or here_found != 0
        if here_found != NOT_SEEN:
            found = found + here_found
        pages = pages + 1
        after = onward(lda64(s.mem, page_at(s, here & PAGE_MASK) + PG_NEXT))
        rmb()  # the link before the word: unchanged, the link belongs to this chain (pairs with `claim_page`)
        gen = page_generation(s, here & PAGE_MASK)
        if gen != (here >> 32) or ((after & PAGE_MASK) == 0 and (after >> 32) != gen):
            # Recycled under our feet: it held nothing. From the head.
            after = lda64(s.mem, at + MB_HEAD)
            if after == here:
                break  # hostile: the head's page never is
        here = after
    if again:
        # Also for what an earlier recovery made READY: it may have died before it said so here.
        faa64(s.mem, at + MB_RESCAN, 1)
    if has_bits(s, mbox):
        # Whoever cleared check_bits may have died before it took the bits.
        st32(s.mem, at + MB_CHECK_BITS, 1)
    tidy_mbox(s, mbox)
    return found


def has_bits(s: Seg, mbox: int) -> bool:
    """Whether an event type's bit is set."""
    i = 0
    while i < MB_BITMAP_WORDS:
        if ld64(s.mem, mbox_at(s, mbox) + MB_BITMAP + i * 8) != 0:
            return True
        i = i + 1
    return False


def has_ready(s: Seg, mbox: int) -> bool:
    """Whether a message waits to be taken (not: is in somebody's hands). True also when the walk gets too long to tell."""
    here = lda64(s.mem, mbox_at(s, mbox) + MB_HEAD)
    pages = 0
    while (here & PAGE_MASK) != 0 and is_real(s, here & PAGE_MASK):
        at = page_at(s, here & PAGE_MASK)
        i = (here >> 20) & 0xFFF
        while i < s.page_slots:
            w = lda64(s.mem, at + PAGE_HEADER + i * SLOT_SIZE)
            if (w & 15) == READY and ((w >> 8) & GEN_MASK) == (here >> 32):
                return True
            if w == empty_word(here >> 32):
                return False
            i = i + 1
        after = onward(lda64(s.mem, at + PG_NEXT))
        pages = pages + 1
        if has_left(s, here, after) or pages > WALK_MAX:
            return True
        here = after
    return False


def waiting_in(s: Seg, mbox: int, upto: int) -> bool:
    """Whether a message before the slot with number `upto` is not DONE: what a drain waits for, though not for a claim,
    whose send has not returned and may never. 0: anywhere, claims too."""
    advance_head(s, mbox)
    # Counted, not read off the first slot: that one may be DONE by now, with others behind it.
    return count_open(s, mbox, upto, 1) != 0


def mbox_end(s: Seg, mbox: int) -> int:
    """The number of the slot behind the last used one now: what `waiting_in` takes as `upto`. 0 if the mailbox is unused. A
    number, since the slot's page may be given back while something before it is not done."""
    at = mbox_at(s, mbox)
    # From the tail hint, which may lag by pages or be in a page that was recycled: then from the head.
    here = lda64(s.mem, at + MB_TAIL)
    if (here & PAGE_MASK) == 0:
        here = lda64(s.mem, at + MB_HEAD)
    pages = 0
    while (here & PAGE_MASK) != 0 and is_real(s, here & PAGE_MASK) and pages < WALK_MAX + 2 * s.nr_pages:
        pages = pages + 1
        page = here & PAGE_MASK
        gen = here >> 32
        after = onward(lda64(s.mem, page_at(s, page) + PG_NEXT))
        i = (here >> 20) & 0xFFF
        while i < s.page_slots and lda64(s.mem, page_at(s, page) + PAGE_HEADER + i * SLOT_SIZE) != empty_word(gen):
            i = i + 1
        number = slot_number(s, page, i)
        rmb()  # all three before the word: unchanged, they belong to this chain (pairs with `claim_page`)
        if page_generation(s, page) != gen or ((after & PAGE_MASK) == 0 and (after >> 32) != gen):
            here = lda64(s.mem, at + MB_HEAD)
        elif (after & PAGE_MASK) == 0:
            return number
        else:
            here = after
    return 0


def tell_drainers(s: Seg) -> None:
    """Whoever waits for a drain looks again when a vcore has run out of work. It counts itself in before it looks, with a
    fence between: pairs with this one."""
    mb()
    if ld32(s.mem, s.procinfo + PI_DRAINERS) != 0:
        faa32(s.mem, s.procinfo + PI_DRAIN_SEQ, 1)
        futex_wake(s.mem, s.procinfo + PI_DRAIN_SEQ, 0x7FFFFFFF)
