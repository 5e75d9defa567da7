"""The page pool: mailboxes grow and shrink by pages, and no death keeps one.

A page's header holds one word, (state, generation, name), and that word alone says whose the page is:

    FREE    -> CLAIMED   by compare-and-swap, with the claimer's name; the generation rises
    CLAIMED -> LINKED    by anybody, once a mailbox leads to it; the name is then the mailbox's number
    CLAIMED -> FREE      by its claimer, who lost the race to link it (the generation falls back: nobody saw it)
    LINKED  -> FREE      by anybody, once it is out of the mailbox's chain

A page leaves its chain when its slots are all DONE and another page follows: the mailbox's head passes it, or, while the
head stands before a slot that stays unfinished for long, the page before it is linked to the one behind. First its own link
is marked (`leave_page`), by compare-and-swap, and from then on nobody changes that link: else whoever takes out the page
behind it at the same moment would do so by a link that nobody follows any more, and give back a page that the chain still
leads to. A link is only ever changed from one that is not marked, so only in a page that is in its chain; and since it
carries the generation of the page that it leads to, never in a later life of either page. Who walks on from a page that has
left comes to where the chain went on, or to a page of another generation, and starts again from the head. Died or stopped
after the mark: the next one through takes the page out. After that: it is marked, and the mailbox does not lead to it
(`scavenge_page`).

The bitmap of free pages is a hint: a bit may be missing (its writer died: `scavenge_pages` sets it again) or be set
wrongly (the compare-and-swap on the header fails). Pages are made real (backed by memory) before their first claim, so
that no access can hit a full file system. `PI_PAGES_REAL` says how many are, and may be wrong, too: each actor touches only
pages that it has asked the kernel for itself (`is_real`).

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
        faa64,
        fand64,
        for64,
        futex_wake,
        ld32,
        ld64,
        lda64,
        mb,
        populate,
        rmb,
        u64,
    )
    from .const import (
        AS_SYSCALLS,
        AS_WORD,
        FULL,
        GEN_MASK,
        LINK_LEAVING,
        MB_HEAD,
        MB_UNLINKED,
        OK,
        PAGE_CLAIMED,
        PAGE_FREE,
        PAGE_HEADER,
        PAGE_LINKED,
        PAGE_MASK,
        PAGES_CHUNK,
        PG_MBOX,
        PG_NEXT,
        PG_WORD,
        PI_PAGES_REAL,
        PI_POOL_ROOM,
        PI_POOL_WAITERS,
        SLOT_GEN_MASK,
        SLOT_MASK,
        SLOT_SIZE,
        WALK_MAX,
    )
    from .layout import Seg, count, is_real, mbox_at, onward, page_at, slot_record_at, word


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
    # The generation before the header's other words, by the compare-and-swap: pairs with the fence before `page_generation`
    # in walks.
    return cas64(s.mem, at + PG_WORD, w, word(PAGE_CLAIMED, gen, s.me))


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
    # Twice the same range does no harm, so two growers need no lock.
    if not s.make_pages_real(real + more):
        return FULL
    populate(s.world, s.pages + real * s.page_size, more * s.page_size)
    if cas64(s.mem, s.procinfo + PI_PAGES_REAL, real, real + more):
        i = real
        while i < real + more:
            for64(s.mem, s.bitmap + i // 64 * 8, u64(1) << (i % 64))
            i = i + 1
    return OK


def take_from_word(s: Seg, index: int) -> int:
    """Claims a page out of one word of the bitmap; 0 if there is none, PAGE_MASK if the next one cannot be made real."""
    at = s.bitmap + index * 8
    v = ld64(s.mem, at)
    tries = 0
    while v != 0 and tries < 64:
        tries = tries + 1
        bit = ctz64(v)
        v = v & ~(u64(1) << bit)
        page = index * 64 + bit + 1
        if not is_real(s, page):
            return PAGE_MASK
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
        if page != 0 and page != PAGE_MASK:
            return page
    rounds = 0
    while rounds < 2:
        index = 0
        while index < words:
            if ld64(s.mem, s.bitmap + index * 8) != 0:
                page = take_from_word(s, index)
                if page == PAGE_MASK:
                    break  # nor can those behind it
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


def is_linked(s: Seg, page: int, gen: int, mbox: int) -> bool:
    """Whether the page, which was reached through this mailbox, is LINKED to it."""
    link_page(s, page, gen, mbox)
    return ld64(s.mem, page_at(s, page) + PG_WORD) == word(PAGE_LINKED, gen, mbox)


def retire_page(s: Seg, page: int, gen: int, mbox: int) -> None:
    """LINKED -> FREE, once the page is out of its mailbox's chain."""
    link_page(s, page, gen, mbox)
    if cas64(s.mem, page_at(s, page) + PG_WORD, word(PAGE_LINKED, gen, mbox), word(PAGE_FREE, gen, 0)):
        give_page(s, page)


def all_done(s: Seg, page: int, i: int, gen: int) -> int:
    """The first slot from `i` on that is not DONE in this generation, or the page's number of slots."""
    slots = page_at(s, page) + PAGE_HEADER
    done = gen << 8
    while i < s.page_slots:
        w = lda64(s.mem, slots + i * SLOT_SIZE)
        if w != done:
            break
        i = i + 1
    return i


def has_left(s: Seg, here: int, after: int) -> bool:
    """Whether the page at `here` had been given back before its link, `after`, was read: that leads elsewhere."""
    rmb()  # the link before the word: unchanged, the link belongs to this chain (pairs with `claim_page`)
    if page_generation(s, here & PAGE_MASK) != (here >> 32):
        return True
    # Given back, then claimed in vain: it has our generation again, and an empty link of the next one.
    return (after & PAGE_MASK) == 0 and (after >> 32) != (here >> 32)


def leave_page(s: Seg, page: int, gen: int) -> bool:
    """Marks the link of a page whose slots are all DONE and which is not the last of its chain: it leaves. True if it is
    marked, now or before. Any actor may: it only says what the slots say, and DONE is for the rest of a generation."""
    at = page_at(s, page) + PG_NEXT
    tries = 0
    while tries < WALK_MAX:
        tries = tries + 1
        link = lda64(s.mem, at)
        if (onward(link) & PAGE_MASK) == 0:
            return False
        if (link & LINK_LEAVING) != 0:
            return True
        # The slots behind the link: one of a later life that leads on, and is not marked, means that all slots were used in
        # that life, so they do not say DONE in this one any more. If the page leaves while they are looked at, its link is
        # not what it was, and never is again: the compare-and-swap fails, whatever the page is used for meanwhile.
        if all_done(s, page, 0, gen) < s.page_slots:
            return False
        if cas64(s.mem, at, link, link | LINK_LEAVING):
            return True
    return False


def unlink_pages(s: Seg, mbox: int) -> int:
    """Takes the marked pages behind the first out of a mailbox's chain, and gives them back; returns how many. What it
    cannot take out, because the page before is leaving too, somebody else will: who marks a page walks after it."""
    found = 0
    steps = 0
    here = lda64(s.mem, mbox_at(s, mbox) + MB_HEAD)
    while (here & PAGE_MASK) != 0 and is_real(s, here & PAGE_MASK) and steps < WALK_MAX + 2 * s.nr_pages:
        steps = steps + 1
        at = page_at(s, here & PAGE_MASK)
        link = lda64(s.mem, at + PG_NEXT)
        after = onward(link)
        page = after & PAGE_MASK
        if has_left(s, here, after):
            here = lda64(s.mem, mbox_at(s, mbox) + MB_HEAD)
            continue
        if page == 0 or not is_real(s, page):
            break
        # If the page has been given back since, this is a link of a later life: then it is not LINKED as ours in the life
        # that the first link names, or the next step from there finds out.
        following = lda64(s.mem, page_at(s, page) + PG_NEXT)
        if (following & LINK_LEAVING) == 0 or (link & LINK_LEAVING) != 0:
            here = after
        elif not is_linked(s, page, after >> 32, mbox):
            here = lda64(s.mem, mbox_at(s, mbox) + MB_HEAD)  # given back since; or marks that no protocol step wrote
        elif cas64(s.mem, at + PG_NEXT, link, onward(following)):
            # Before the page can be used again: a cursor that loses its way finds that this has risen (pairs with the
            # load in `restart`), and so that it was no fault of the segment's.
            faa64(s.mem, mbox_at(s, mbox) + MB_UNLINKED, 1)
            retire_page(s, page, after >> 32, mbox)
            found = found + 1
    return found


def sweep_mbox(s: Seg, mbox: int) -> int:
    """Gives back every page behind a mailbox's first whose slots are all DONE; returns how many."""
    left = 0
    steps = 0
    here = lda64(s.mem, mbox_at(s, mbox) + MB_HEAD)
    while (here & PAGE_MASK) != 0 and is_real(s, here & PAGE_MASK) and steps < WALK_MAX + 2 * s.nr_pages:
        steps = steps + 1
        if leave_page(s, here & PAGE_MASK, here >> 32):
            left = left + 1
        after = onward(lda64(s.mem, page_at(s, here & PAGE_MASK) + PG_NEXT))
        if has_left(s, here, after):
            after = lda64(s.mem, mbox_at(s, mbox) + MB_HEAD)
            if after == here:
                break  # hostile: the head's page never has
        here = after
    if left == 0:
        return 0
    return unlink_pages(s, mbox)


def reachable(s: Seg, mbox: int, page: int, gen: int) -> int:
    """Whether the mailbox's chain leads to this page: 1, or 0; 2 if the walk meets something odd, and cannot tell."""
    here = lda64(s.mem, mbox_at(s, mbox) + MB_HEAD)
    steps = 0
    while here & PAGE_MASK:
        at = here & PAGE_MASK
        if not is_real(s, at) or steps > s.nr_pages:
            return 2
        if at == page and (here >> 32) == gen:
            return 1
        after = onward(lda64(s.mem, page_at(s, at) + PG_NEXT))
        if has_left(s, here, after):
            return 2
        here = after
        steps = steps + 1
    return 0


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
    if state == PAGE_CLAIMED and name_is_dead(s, w >> 32):
        # The claimer died before or after it linked the page: the mailbox itself knows. PG_MBOX is written before the
        # link, so an unwritten or hostile one only means that nothing leads here. Read once the claimer is dead: from an
        # earlier look it could still have written it, and linked the page.
        mbox = ld64(s.mem, at + PG_MBOX)
        leads = reachable(s, mbox, page, gen) if mbox < s.nr_mboxes else u64(0)
        if leads == 1:
            link_page(s, page, gen, mbox)
        # 2: it stays the dead one's, and is looked at again. Called LINKED it would be nobody's if it is not.
        if leads == 0 and cas64(s.mem, at + PG_WORD, w, word(PAGE_FREE, (gen - 1) & GEN_MASK, 0)):
            give_page(s, page)
            return 1
    # Marked, and the chain does not lead to it: whoever moved the head past it, or took it out, died before it gave it
    # back. The mark after the word (an acquire): it is of this life of the page. A page that has left does not come back.
    leaves = state == PAGE_LINKED and (lda64(s.mem, at + PG_NEXT) & LINK_LEAVING) != 0
    if leaves and (w >> 32) < s.nr_mboxes and reachable(s, w >> 32, page, gen) == 0:
        faa64(s.mem, mbox_at(s, w >> 32) + MB_UNLINKED, 1)  # as in `unlink_pages`
        if cas64(s.mem, at + PG_WORD, w, word(PAGE_FREE, gen, 0)):
            give_page(s, page)
            return 1
    return 0


def scavenge_pages(s: Seg) -> int:
    """Looks at every mailbox and every real page; returns how many came back. Slow path: the pool is full, or somebody has
    died."""
    real = ld64(s.mem, s.procinfo + PI_PAGES_REAL)
    if real > s.nr_pages:
        real = s.nr_pages
    found = 0
    mbox = 0
    while mbox < s.nr_mboxes:
        found = found + sweep_mbox(s, mbox)
        mbox = mbox + 1
    page = 1
    while page <= real and is_real(s, page):
        found = found + scavenge_page(s, page)
        page = page + 1
    return found
