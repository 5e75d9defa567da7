"""The page pool: mailboxes grow and shrink by pages, and no death keeps one.

A page's header holds one word, (state, generation, name), and that word alone says whose the page is:

    FREE    -> CLAIMED   by compare-and-swap, with the claimer's name; the generation rises
    CLAIMED -> LINKED    by anybody, once a mailbox leads to it; the name is then the mailbox's number
    CLAIMED -> FREE      by its claimer, who lost the race to link it (the generation falls back: nobody saw it)
    LINKED  -> FREE      by anybody, once the mailbox's head has passed it

The bitmap of free pages is a hint: a bit may be missing (its writer died: `scavenge_pages` sets it again) or be set
wrongly (the compare-and-swap on the header fails). Pages are made real (backed by memory) before their first claim, so
that no store can hit a full file system; `PI_PAGES_REAL` says how many are.

A used page needs no cleaning: its slots all hold (DONE, g), which is what EMPTY means in generation g + 1.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..machine.door import (
        alive,
        cas64,
        ctz64,
        faa32,
        fand64,
        for64,
        futex_wake,
        grow,
        ld32,
        ld64,
        lda64,
        mb,
        rmb,
        u64,
        wmb,
    )
    from .const import (
        AS_SYSCALLS,
        AS_WORD,
        FULL,
        GEN_MASK,
        MB_HEAD,
        OK,
        PAGE_CLAIMED,
        PAGE_FREE,
        PAGE_LINKED,
        PAGE_MASK,
        PAGES_CHUNK,
        PG_MBOX,
        PG_NEXT,
        PG_SEQ,
        PG_WORD,
        PI_PAGES_REAL,
        PI_POOL_ROOM,
        PI_POOL_WAITERS,
        SLOT_GEN_MASK,
        SLOT_MASK,
    )
    from .layout import Seg, count, mbox_at, page_at, slot_record_at, word


def page_owner_name(w: int) -> int:
    """The name in a page's or slot's word."""
    return w >> 32


def name_is_dead(s: Seg, name: int) -> bool:
    """Whether the actor of this name is gone: its slot belongs to a later generation, or the kernel has dropped its
    lock. Asking the kernel is a system call: for slow paths only."""
    slot = name & SLOT_MASK
    if name == s.me:
        return False
    if slot >= s.max_slots:
        return True
    w = lda64(s.mem, slot_record_at(s, slot) + AS_WORD)  # an acquire: pairs with `_settle` of the attach slots
    if (w & SLOT_GEN_MASK) != (name >> 12):
        return True
    return not alive(s.world, name)


def bury_name(s: Seg, name: int) -> None:
    """Makes a name dead whose owner the caller has seen die. A child that it was just forking may hold its lock for a
    moment longer; whoever asks then is told that it lives, and may not ask again. The slot's next generation says it
    without asking; the slot itself is taken again when its lock falls."""
    slot = name & SLOT_MASK
    if slot >= s.max_slots:
        return
    at = slot_record_at(s, slot) + AS_WORD
    w = ld64(s.mem, at)
    gen = w & SLOT_GEN_MASK
    if gen == (name >> 12):
        after = (gen + 1) & SLOT_GEN_MASK
        if after == 0:
            after = 1
        # Compared: the slot may have its next owner by now.
        cas64(s.mem, at, w, after)


def claim_page(s: Seg, page: int) -> bool:
    """FREE -> CLAIMED(me), in the page's next generation. False if it is not free."""
    at = page_at(s, page)
    w = lda64(s.mem, at + PG_WORD)
    if (w & 15) != PAGE_FREE:
        return False
    gen = ((w >> 8) + 1) & GEN_MASK
    if not cas64(s.mem, at + PG_WORD, w, word(PAGE_CLAIMED, gen, s.me)):
        return False
    wmb()  # the generation before the header's other words: pairs with the fence before `page_generation` in walks
    return True


def give_page(s: Seg, page: int) -> None:
    """Sets the page's bit, so that it is found again, and tells those who wait for room."""
    at = s.bitmap + (page - 1) // 64 * 8
    for64(s.mem, at, u64(1) << ((page - 1) % 64))
    s.hint_page = page
    tell_room(s)


def tell_room(s: Seg) -> None:
    """Wakes senders that wait for the pool. They raise PI_POOL_WAITERS, fence, and look once more before they sleep;
    pairs with the fence in `want_room`: without it, room given here and a sender going to sleep could miss each
    other."""
    mb()
    if ld32(s.mem, s.procinfo + PI_POOL_WAITERS) != 0:
        faa32(s.mem, s.procinfo + PI_POOL_ROOM, 1)
        futex_wake(s.mem, s.procinfo + PI_POOL_ROOM, 0x7FFFFFFF)
        count(s, AS_SYSCALLS, 1)


def grow_pages(s: Seg) -> int:
    """Makes the next pages real. OK, or FULL when the pool or the file system has no more."""
    real = ld64(s.mem, s.procinfo + PI_PAGES_REAL)
    if real >= s.nr_pages:
        return FULL
    more = s.nr_pages - real
    if more > PAGES_CHUNK:
        more = PAGES_CHUNK
    # Only a few system calls for each megabyte; twice the same range does no harm, so two growers need no lock.
    if grow(s.world, s.pages + real * s.page_size, more * s.page_size) != 0:
        return FULL
    count(s, AS_SYSCALLS, 1)
    if cas64(s.mem, s.procinfo + PI_PAGES_REAL, real, real + more):
        i = real
        while i < real + more:
            for64(s.mem, s.bitmap + i // 64 * 8, u64(1) << (i % 64))
            i = i + 1
    return OK


def take_from_word(s: Seg, index: int) -> int:
    """Claims a page out of one word of the bitmap; 0 if there is none."""
    at = s.bitmap + index * 8
    v = ld64(s.mem, at)
    tries = 0
    while v != 0 and tries < 64:
        tries = tries + 1
        bit = ctz64(v)
        v = v & ~(u64(1) << bit)
        page = index * 64 + bit + 1
        if page > s.nr_pages:
            return 0
        # Clear the bit first: if we die here the page is FREE without a bit, which scavenging mends; the other order
        # would leave a bit for a page in use, which costs every later claimer a failed compare-and-swap.
        fand64(s.mem, at, ~(u64(1) << bit))
        if claim_page(s, page):
            return page
    return 0


def alloc_page(s: Seg) -> int:
    """A page CLAIMED by this actor, or 0 if the pool is full. The last page given back is tried first: it is warm."""
    words = (s.nr_pages + 63) // 64
    if s.hint_page != 0:
        page = take_from_word(s, (s.hint_page - 1) // 64)
        s.hint_page = 0
        if page != 0:
            return page
    rounds = 0
    while rounds < 2:
        index = 0
        while index < words:
            if ld64(s.mem, s.bitmap + index * 8) != 0:
                page = take_from_word(s, index)
                if page != 0:
                    return page
            index = index + 1
        if grow_pages(s) == FULL:
            # Looked at again even if nothing was scavenged: another may have grown the pool, or given back, meanwhile.
            if rounds == 0:
                scavenge_pages(s)
            rounds = rounds + 1
    return 0


def page_generation(s: Seg, page: int) -> int:
    """The generation in the page's word."""
    return (lda64(s.mem, page_at(s, page) + PG_WORD) >> 8) & GEN_MASK


def abandon_page(s: Seg, page: int, gen: int) -> None:
    """CLAIMED(me) -> FREE, for a page that nobody else has seen. Its slots still hold the generation before, so that is
    what the word says again."""
    before = (gen - 1) & GEN_MASK
    if cas64(s.mem, page_at(s, page) + PG_WORD, word(PAGE_CLAIMED, gen, s.me), word(PAGE_FREE, before, 0)):
        give_page(s, page)


def link_page(s: Seg, page: int, gen: int, mbox: int) -> None:
    """CLAIMED -> LINKED, by whoever reaches the page through its mailbox. The owner may be dead: helping is the same."""
    at = page_at(s, page) + PG_WORD
    w = ld64(s.mem, at)
    if (w & 15) == PAGE_CLAIMED and ((w >> 8) & GEN_MASK) == gen:
        cas64(s.mem, at, w, word(PAGE_LINKED, gen, mbox))


def retire_page(s: Seg, page: int, gen: int, mbox: int) -> None:
    """LINKED -> FREE, once the mailbox's head has passed the page and all its slots are DONE."""
    link_page(s, page, gen, mbox)
    if cas64(s.mem, page_at(s, page) + PG_WORD, word(PAGE_LINKED, gen, mbox), word(PAGE_FREE, gen, 0)):
        give_page(s, page)


def reachable(s: Seg, mbox: int, page: int, gen: int) -> bool:
    """Whether the mailbox's chain leads to this page. True also when the walk meets something odd: then keep it."""
    here = lda64(s.mem, mbox_at(s, mbox) + MB_HEAD)
    steps = 0
    while here & PAGE_MASK:
        at = here & PAGE_MASK
        if at > s.nr_pages or steps > s.nr_pages:
            return True
        if at == page and (here >> 32) == gen:
            return True
        after = lda64(s.mem, page_at(s, at) + PG_NEXT)
        rmb()  # the link before the word: unchanged, the link belongs to this chain (pairs with `claim_page`)
        if page_generation(s, at) != (here >> 32) or ((after & PAGE_MASK) == 0 and (after >> 32) != (here >> 32)):
            return True  # recycled under our feet: the link leads elsewhere
        here = after
        steps = steps + 1
    return False


def scavenge_page(s: Seg, page: int) -> int:
    """Gives one page back that a death left behind. 1 if it did (or if the page was free without a bit)."""
    at = page_at(s, page)
    w = lda64(s.mem, at + PG_WORD)
    state = w & 15
    gen = (w >> 8) & GEN_MASK
    if state == PAGE_FREE:
        bit = u64(1) << ((page - 1) % 64)
        if (ld64(s.mem, s.bitmap + (page - 1) // 64 * 8) & bit) == 0:
            give_page(s, page)
            return 1
        return 0
    mbox = ld64(s.mem, at + PG_MBOX)
    if state == PAGE_CLAIMED and name_is_dead(s, w >> 32):
        # The claimer died before or after it linked the page: the mailbox itself knows. PG_MBOX is written before the
        # link, so an unwritten or hostile one only means that nothing leads here.
        if mbox < s.nr_mboxes and reachable(s, mbox, page, gen):
            link_page(s, page, gen, mbox)
            return 0
        if cas64(s.mem, at + PG_WORD, w, word(PAGE_FREE, (gen - 1) & GEN_MASK, 0)):
            give_page(s, page)
            return 1
    if state == PAGE_LINKED and (w >> 32) < s.nr_mboxes:
        # Whoever moved the head past it died before giving it back. Sequence numbers rise along a mailbox.
        head = lda64(s.mem, mbox_at(s, w >> 32) + MB_HEAD)
        front = head & PAGE_MASK
        if front != 0 and front <= s.nr_pages and front != page:
            passed = ld64(s.mem, at + PG_SEQ) < ld64(s.mem, page_at(s, front) + PG_SEQ)
            # The head again: unchanged, its page was not recycled while its number was read.
            rmb()  # pairs with the compare-and-swap of the head in `advance_head`; else an older head could be read
            if passed and lda64(s.mem, mbox_at(s, w >> 32) + MB_HEAD) == head:
                if cas64(s.mem, at + PG_WORD, w, word(PAGE_FREE, gen, 0)):
                    give_page(s, page)
                    return 1
    return 0


def scavenge_pages(s: Seg) -> int:
    """Looks at every real page; returns how many came back. Slow path: the pool is full, or somebody has died."""
    real = ld64(s.mem, s.procinfo + PI_PAGES_REAL)
    if real > s.nr_pages:
        real = s.nr_pages
    found = 0
    page = 1
    while page <= real:
        found = found + scavenge_page(s, page)
        page = page + 1
    return found
