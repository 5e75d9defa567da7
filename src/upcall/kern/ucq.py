"""The mailbox queue, producer side: many producers, many consumers, unbounded, and nobody's death blocks anybody.

A mailbox is a chain of pages, each an array of slots; every slot has one word, and the word is the truth:

    EMPTY   -> CLAIMED   compare-and-swap by a producer, with its name; only if every slot before is not EMPTY
    CLAIMED -> READY     by its claimer, after the contents
    READY   -> TAKEN     compare-and-swap by a consumer, with its name
    TAKEN   -> DONE      by its taker, after the handler returned
    CLAIMED -> DONE      by anybody, once the claimer is dead: nothing was sent
    TAKEN   -> READY     by anybody, once the taker is dead: delivered again

EMPTY is not a number of its own: it is (DONE, generation - 1). A slot becomes EMPTY again only when its page turns.

`tail` is a hint where the first EMPTY slot may be. It is never ahead of it (written only after a claim, to the place
behind the claimed slot), so that walking forward from it finds the first EMPTY slot; if it lags, or names a page that
was recycled, the generation in the slot's word makes the compare-and-swap fail and the producer walks from the head.
`head` moves behind the first slots as long as they are DONE, slot by slot and page by page, by anybody. A page is given
back when the head has left it; or before, when the head stands at a slot that stays unfinished (its sender or its taker
is stopped, or takes long) and all slots of a page behind it are DONE (`give_back`).

Death between any two steps: before the claim, nothing happened. After it, consumers skip the slot and one of them makes
it DONE once the claimer is dead. Between claiming a page and linking it, `scavenge_page` asks the mailbox. The tail
hint lags. After READY the message is there; telling somebody is the next layer's task.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..machine.door import (
        cas64,
        copy_in,
        faa32,
        futex_wake,
        ld32,
        ld64,
        lda32,
        lda64,
        mb,
        prefetchw,
        rmb,
        st16,
        st32,
        st64,
        str64,
        u64,
        xchg64,
    )
    from .arena import name_block
    from .const import (
        AS_SYSCALLS,
        BUSY,
        CLAIMED,
        CORRUPT,
        FULL,
        GEN_MASK,
        INLINE_MAX,
        LINK_LEAVING,
        MB_HEAD,
        MB_LIMIT,
        MB_ROOM,
        MB_ROOM_WAITERS,
        MB_TAIL,
        OK,
        PAGE_FREE,
        PAGE_HEADER,
        PAGE_LINKED,
        PAGE_MASK,
        PG_MBOX,
        PG_NEXT,
        PG_SEQ,
        PG_WORD,
        PI_POOL_ROOM,
        READY,
        SL_ARG1,
        SL_ARG2,
        SL_ARG3,
        SL_ARG4,
        SL_BLOCK,
        SL_INLINE,
        SL_LEN,
        SL_QUEUE,
        SL_TYPE,
        SL_WORD,
        SLOT_SIZE,
        TAKEN,
        WALK_MAX,
    )
    from .layout import Msg, Seg, count, is_real, mbox_at, onward, page_at, place, word
    from .pages import (
        abandon_page,
        all_done,
        alloc_page,
        leave_page,
        link_page,
        page_generation,
        retire_page,
        sweep_mbox,
        unlink_pages,
    )
    from .proc import tell_holders


def empty_word(gen: int) -> int:
    """The word of a slot that nobody has used in generation `gen` of its page."""
    return ((gen - 1) & GEN_MASK) << 8


def first_page(s: Seg, mbox: int) -> int:
    """Gives an unused mailbox its first page. The head's place, or 0 if the pool is full."""
    at = mbox_at(s, mbox)
    head = lda64(s.mem, at + MB_HEAD)
    if head & PAGE_MASK:
        return head
    page = alloc_page(s)
    if page == 0:
        return 0
    gen = page_generation(s, page)
    st64(s.mem, page_at(s, page) + PG_SEQ, 1)
    st64(s.mem, page_at(s, page) + PG_NEXT, place(0, 0, gen))
    st64(s.mem, page_at(s, page) + PG_MBOX, mbox)
    # The page's header before the place that leads to it: pairs with the acquiring load of the head.
    if cas64(s.mem, at + MB_HEAD, head, place(page, 0, gen)):
        link_page(s, page, gen, mbox)
        return place(page, 0, gen)
    abandon_page(s, page, gen)
    return lda64(s.mem, at + MB_HEAD)


def next_page(s: Seg, mbox: int, page: int, gen: int) -> int:
    """The place behind the last slot of a page, whose every slot is used: links a new page if need be. 0: pool full, or
    the page has been recycled (the caller starts again from the head, and finds out which)."""
    at = page_at(s, page)
    after = onward(lda64(s.mem, at + PG_NEXT))
    seq = ld64(s.mem, at + PG_SEQ)
    # The link (an acquire) before the word: unchanged, the link belongs to this generation (pairs with `claim_page`). The
    # number may belong to a later one: then this page has a successor, and the link below fails.
    if page_generation(s, page) != gen:
        return 0
    if after & PAGE_MASK:
        if not is_real(s, after & PAGE_MASK):
            return 0
        return after
    if (after >> 32) != gen:
        return 0
    fresh = alloc_page(s)
    if fresh == 0:
        return 0
    fresh_gen = page_generation(s, fresh)
    st64(s.mem, page_at(s, fresh) + PG_SEQ, seq + 1)
    st64(s.mem, page_at(s, fresh) + PG_NEXT, place(0, 0, fresh_gen))
    st64(s.mem, page_at(s, fresh) + PG_MBOX, mbox)
    # The page's header before the link: pairs with the acquiring load of PG_NEXT. An empty link carries the page's
    # generation, so a link into a recycled page fails.
    if cas64(s.mem, at + PG_NEXT, after, place(fresh, 0, fresh_gen)):
        link_page(s, fresh, fresh_gen, mbox)
        return place(fresh, 0, fresh_gen)
    abandon_page(s, fresh, fresh_gen)
    after = onward(lda64(s.mem, at + PG_NEXT))
    # The link (an acquire) before the word again: since the first look the page may have been used up, and be another
    # mailbox's.
    if page_generation(s, page) != gen or (after & PAGE_MASK) == 0 or not is_real(s, after & PAGE_MASK):
        return 0
    return after


def claim_slot(s: Seg, mbox: int) -> int:
    """Claims the first empty slot. Returns its place with the page's number, or 0 with the reason in `s.why`."""
    at = mbox_at(s, mbox)
    here = lda64(s.mem, at + MB_TAIL)
    if (here & PAGE_MASK) == 0 or not is_real(s, here & PAGE_MASK):
        here = first_page(s, mbox)
    restarts = 0
    steps = 0
    while True:
        page = here & PAGE_MASK
        if page == 0:
            s.why = FULL
            return 0
        if not is_real(s, page):
            s.why = CORRUPT
            return 0
        i = (here >> 20) & 0xFFF
        gen = here >> 32
        if restarts != 0 and ld64(s.mem, page_at(s, page) + PG_NEXT) & PAGE_MASK:
            i = s.page_slots  # a page with a successor has no empty slot: a long chain is walked by pages
        empty = empty_word(gen)
        slots = page_at(s, page) + PAGE_HEADER
        while i < s.page_slots:
            if ld64(s.mem, slots + i * SLOT_SIZE) == empty:
                # The claim itself. A failure means that another producer has the slot, or that the page was recycled: then
                # none of its slots is EMPTY in our generation, now or later, and `next_page` finds out.
                if cas64(s.mem, slots + i * SLOT_SIZE, empty, word(CLAIMED, gen, s.me)):
                    # A hint only: two producers may write it in the wrong order, and then it lags.
                    st64(s.mem, at + MB_TAIL, place(page, i + 1, gen))
                    return place(page, i, gen)
            i = i + 1
        steps = steps + 1
        here = next_page(s, mbox, page, gen)
        if here != 0:
            if steps > WALK_MAX:
                # How far we came is a good hint: no slot before is EMPTY. The next try goes on from there.
                st64(s.mem, at + MB_TAIL, here)
                s.why = BUSY
                return 0
            continue
        # No next page. If this page is still in place, the pool is full. A page that was retired and then claimed and given
        # back by another also has our generation and no successor: it is FREE.
        w = lda64(s.mem, page_at(s, page) + PG_WORD)
        if ((w >> 8) & GEN_MASK) == gen and (w & 15) != PAGE_FREE:
            s.why = FULL
            return 0
        # The hint was stale: from the head, once more. Each time round, other producers have used up a whole page.
        restarts = restarts + 1
        if restarts > 64:
            s.why = BUSY
            return 0
        here = lda64(s.mem, at + MB_HEAD)
        if (here & PAGE_MASK) == 0:
            here = first_page(s, mbox)


def fill_slot(s: Seg, at: int, msg: Msg) -> None:
    """Writes the contents of a claimed slot. No Python object is made here: a finalizer could send."""
    st16(s.mem, at + SL_TYPE, msg.ev_type)
    st16(s.mem, at + SL_ARG1, msg.arg1)
    st32(s.mem, at + SL_ARG2, msg.arg2)
    st64(s.mem, at + SL_ARG3, msg.arg3)
    st64(s.mem, at + SL_ARG4, msg.arg4)
    st32(s.mem, at + SL_LEN, msg.length)
    st16(s.mem, at + SL_QUEUE, msg.queue)
    if msg.length > INLINE_MAX:
        st64(s.mem, at + SL_BLOCK, msg.block)
    elif msg.length != 0:
        copy_in(s.mem, at + SL_INLINE, msg.src, msg.length)


def slot_at(s: Seg, where: int) -> int:
    """The offset of the slot at a place whose page number has been checked."""
    return page_at(s, where & PAGE_MASK) + PAGE_HEADER + ((where >> 20) & 0xFFF) * SLOT_SIZE


def mbox_depth(s: Seg, mbox: int) -> int:
    """Slots between head and tail, counted by their pages' numbers: no fewer than are not DONE."""
    at = mbox_at(s, mbox)
    head = lda64(s.mem, at + MB_HEAD)
    tail = lda64(s.mem, at + MB_TAIL)
    front = head & PAGE_MASK
    back = tail & PAGE_MASK
    if front == 0 or back == 0 or not is_real(s, front) or not is_real(s, back):
        return 0
    pages = u64(ld64(s.mem, page_at(s, back) + PG_SEQ) - ld64(s.mem, page_at(s, front) + PG_SEQ))
    rmb()  # the numbers before the words: unchanged, they are this mailbox's (pairs with `claim_page`)
    # One of them was recycled, or the head has passed the tail: that is a lagging hint, and may be so for long.
    if page_generation(s, front) != (head >> 32) or page_generation(s, back) != (tail >> 32) or (pages >> 63) != 0:
        return 0
    if pages > s.nr_pages:
        pages = s.nr_pages  # the others were given back, from between the two
    used = pages * s.page_slots + ((tail >> 20) & 0xFFF)
    before = (head >> 20) & 0xFFF
    if used < before:
        return 0
    return used - before


def is_full(s: Seg, mbox: int, limit: int) -> bool:
    """Whether so many messages wait in a mailbox, or are in somebody's hands."""
    if mbox_depth(s, mbox) < limit:
        return False
    advance_head(s, mbox)
    # The head stays before a sender that is stopped in its claim, and before a handler that hangs: what others have done
    # behind it does not count, or one that does not move would stop all senders.
    return mbox_depth(s, mbox) >= limit and count_open(s, mbox, 0, limit) >= limit


def slot_number(s: Seg, page: int, i: int) -> int:
    """The running number of a slot in its mailbox: never 0, rising along the chain, and never used again."""
    return u64(ld64(s.mem, page_at(s, page) + PG_SEQ) * s.page_slots + i)


def count_open(s: Seg, mbox: int, upto: int, most: int) -> int:
    """Slots from the head on that are not DONE: before the one with number `upto`, where claims do not count, since their
    sends have not returned; or (0) all, claims too. `most` ends the count; it is also the answer if the first one waits to
    be taken, as those behind it then do, or if the walk gets too long to tell."""
    head = mbox_at(s, mbox) + MB_HEAD
    here = lda64(s.mem, head)
    found = 0
    pages = 0
    while (here & PAGE_MASK) != 0 and is_real(s, here & PAGE_MASK):
        pages = pages + 1
        if pages > WALK_MAX:
            return most
        page = here & PAGE_MASK
        gen = here >> 32
        i = (here >> 20) & 0xFFF
        last = s.page_slots
        number = slot_number(s, page, i)
        rmb()  # the number before the word: unchanged, it belongs to this chain (pairs with `claim_page`)
        lost = page_generation(s, page) != gen
        if upto != 0 and not lost:
            if upto <= number:
                return found
            if upto - number < last - i:
                last = i + (upto - number)
        while i < last and not lost:
            w = lda64(s.mem, page_at(s, page) + PAGE_HEADER + i * SLOT_SIZE)
            if w == empty_word(gen):
                return found
            if ((w >> 8) & GEN_MASK) != gen:
                lost = True
            elif (w & 15) == READY and found == 0:
                return most
            elif (w & 15) == READY or (w & 15) == TAKEN or ((w & 15) == CLAIMED and upto == 0):
                found = found + 1
                if found == most:
                    return most
            i = i + 1
        if last < s.page_slots and not lost:
            return found
        after = onward(lda64(s.mem, page_at(s, page) + PG_NEXT))
        rmb()  # the link before the word, as the number
        if lost or page_generation(s, page) != gen or ((after & PAGE_MASK) == 0 and (after >> 32) != gen):
            # Recycled under our feet: from the head.
            found = 0
            after = lda64(s.mem, head)
        here = after
    return found


def send_ucq_msg(s: Seg, mbox: int, msg: Msg) -> int:
    """Appends a message. OK, FULL (pool or the mailbox's limit), BUSY or CORRUPT; anything but OK: nothing was sent."""
    limit = ld64(s.mem, mbox_at(s, mbox) + MB_LIMIT)
    if limit != 0 and is_full(s, mbox, limit):
        return FULL
    where = claim_slot(s, mbox)
    if where == 0:
        return s.why
    at = slot_at(s, where)
    if msg.length > INLINE_MAX:
        name_block(s, msg.block, where)
    fill_slot(s, at, msg)
    # READY is exchanged, not stored: it must come after the contents (a consumer that sees READY reads them), and before
    # the sender reads alert_pending, notif_disabled or a state in the next layer (order 6 of the protocol). A release
    # store would give the first and, without a full fence, not the second.
    xchg64(s.mem, at + SL_WORD, word(READY, where >> 32, s.me))
    return OK


def send_ucq_some(s: Seg, mbox: int, msg: Msg) -> int:
    """As `send_ucq_msg`, for one of many: READY is a release, so a consumer that sees it reads whole contents, but the
    caller owes the full fence (and the telling) before it returns."""
    limit = ld64(s.mem, mbox_at(s, mbox) + MB_LIMIT)
    if limit != 0 and is_full(s, mbox, limit):
        return FULL
    where = claim_slot(s, mbox)
    if where == 0:
        return s.why
    at = slot_at(s, where)
    prefetchw(s.mem, at + 4 * SLOT_SIZE)
    if msg.length > INLINE_MAX:
        name_block(s, msg.block, where)
    fill_slot(s, at, msg)
    str64(s.mem, at + SL_WORD, word(READY, where >> 32, s.me))
    return OK


def room_word(s: Seg, mbox: int) -> int:
    """What a sender that found no room sleeps on: the mailbox's futex if its limit is reached, else the pool's. The
    number of waiters lies behind it."""
    if mbox < s.nr_mboxes:
        limit = ld64(s.mem, mbox_at(s, mbox) + MB_LIMIT)
        if limit != 0 and is_full(s, mbox, limit):
            return mbox_at(s, mbox) + MB_ROOM
    return s.procinfo + PI_POOL_ROOM


def want_room(s: Seg, at: int) -> int:
    """Counts a waiter in; returns the futex word to sleep on, if one more try to send still finds no room."""
    # Counted before the futex word and the next try: pairs with `tell_room` and `tell_mbox_room`, which make room, fence,
    # and read the count. A waiter that dies stays counted, and costs later givers a system call each.
    faa32(s.mem, at + 4, 1)
    return lda32(s.mem, at)


def stop_wanting(s: Seg, at: int) -> None:
    """Counts a waiter out."""
    faa32(s.mem, at + 4, 0xFFFFFFFF)


def advance_head(s: Seg, mbox: int) -> int:
    """Moves the head behind what is DONE and gives back the pages it leaves. Any actor may: it only repeats what the
    slots say. The last page of a chain stays, so a producer always finds one."""
    at = mbox_at(s, mbox)
    moved = 0
    freed = 0
    steps = 0
    while steps < WALK_MAX:
        steps = steps + 1
        head = lda64(s.mem, at + MB_HEAD)
        page = head & PAGE_MASK
        if page == 0 or not is_real(s, page):
            return moved
        gen = head >> 32
        first = (head >> 20) & 0xFFF
        i = all_done(s, page, first, gen)
        if i < s.page_slots:
            if i > first:
                cas64(s.mem, at + MB_HEAD, head, place(page, i, gen))
                moved = 1
            break
        link = lda64(s.mem, page_at(s, page) + PG_NEXT)
        rmb()  # the link before the word: unchanged, the link belongs to this chain (pairs with `claim_page`)
        if page_generation(s, page) != gen:
            continue
        after = onward(link)
        if (after & PAGE_MASK) == 0 or not is_real(s, after & PAGE_MASK):
            if i > first:
                cas64(s.mem, at + MB_HEAD, head, place(page, i, gen))
                moved = 1
            break
        link_page(s, page, gen, mbox)
        # Marked before the head leaves it, as `leave_page` does: what follows it stays what it is. If it changes now,
        # somebody has just taken out the page behind it, or marked it: once more.
        if link == after and not cas64(s.mem, page_at(s, page) + PG_NEXT, link, link | LINK_LEAVING):
            continue
        if cas64(s.mem, at + MB_HEAD, head, after):
            moved = 1
            freed = 1
            retire_page(s, page, gen, mbox)
    if moved:
        tell_mbox_room(s, mbox)
    if freed:
        tell_holders(s)
    return moved


def give_back(s: Seg, mbox: int, page: int, gen: int) -> None:
    """Gives back a page of a mailbox, if its slots are all DONE while the head stands in a page before it."""
    if ld64(s.mem, page_at(s, page) + PG_WORD) != word(PAGE_LINKED, gen, mbox):
        return  # the usual case: the head has passed it
    if (ld64(s.mem, mbox_at(s, mbox) + MB_HEAD) & PAGE_MASK) != page and leave_page(s, page, gen):
        if unlink_pages(s, mbox) != 0:
            tell_holders(s)


def tidy_mbox(s: Seg, mbox: int) -> None:
    """Moves the head behind what is DONE, and gives back the pages that hold nothing else. Walks the whole chain: for those
    who have nothing else to do, and after a death."""
    advance_head(s, mbox)
    if sweep_mbox(s, mbox) != 0:
        tell_holders(s)


def tell_mbox_room(s: Seg, mbox: int) -> None:
    """Wakes senders that wait for this mailbox's limit; the same pairing as `tell_room`."""
    at = mbox_at(s, mbox)
    mb()  # the head before the look at the waiters: pairs with the fence in `want_room`, else both may miss
    if ld32(s.mem, at + MB_ROOM_WAITERS) != 0:
        faa32(s.mem, at + MB_ROOM, 1)
        futex_wake(s.mem, at + MB_ROOM, 0x7FFFFFFF)
        count(s, AS_SYSCALLS, 1)
