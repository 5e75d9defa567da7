"""The payload arena: blocks for payloads that do not fit a slot, and no death keeps one.

The arena is an array of 64 KiB spans. A span is FREE, carved into SMALL blocks of one class (512 bytes to 32 KiB, powers
of two), or part of a LARGE block: a head and the BODY spans behind it. All records lie in a table apart from the spans,
so payload bytes can never overwrite them.

A block's word names its owner: first the sender, from the claim on; then, once a consumer has TAKEN the message, that
consumer. The block also names the slot it is for. The rule that a scavenger follows: a block whose owner is dead is free
if and only if its slot does not hold it, where a slot holds a block while it is READY or TAKEN in the generation that
the block names. So a sender that dies before READY loses its block, one that dies after READY does not, and a consumer
that dies in its handler leaves the block with the message, which is delivered again.

Where a free block may be is a matter of hints only, each actor's own and one shared: a block is whose its word says.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..machine.door import cas64, ld64, lda64, low32, populate, st64, u64, wmb
    from .const import (
        BK_SLOT,
        BK_WORD,
        BLOCK_FREE,
        BLOCK_HELD,
        BLOCK_LARGE,
        BLOCK_STRIDE,
        GEN_MASK,
        PAGE_HEADER,
        PAGE_MASK,
        PI_SPANS_FREED,
        PI_SPANS_REAL,
        READY,
        SL_BLOCK,
        SL_WORD,
        SLOT_SIZE,
        SMALL_CLASSES,
        SMALL_SHIFT,
        SP_BLOCKS,
        SP_COUNT,
        SP_HEAD,
        SP_SLOT,
        SP_WORD,
        SPAN_BODY,
        SPAN_CLAIMED,
        SPAN_FREE,
        SPAN_LARGE,
        SPAN_LEAVING,
        SPAN_SIZE,
        SPAN_SMALL,
        SPANS_TRIED,
        TAKEN,
        WALK_MAX,
    )
    from .layout import Seg, is_real, page_at, span_at, word
    from .pages import name_is_dead, tell_room
    from .proc import tell_holders


def class_of(length: int) -> int:
    """The class of small blocks that fits `length` bytes; SMALL_CLASSES if none does."""
    c = 0
    while c < SMALL_CLASSES and (u64(1) << (SMALL_SHIFT + c)) < length:
        c = c + 1
    return c


def blocks_in(c: int) -> int:
    """How many blocks of class `c` a span holds."""
    return SPAN_SIZE >> (SMALL_SHIFT + c)


def reference(span: int, block: int) -> int:
    """What a slot keeps of a block; never 0."""
    return (span + 1) | (block << 32)


def block_record(s: Seg, span: int, block: int) -> int:
    return span_at(s, span) + SP_BLOCKS + block * BLOCK_STRIDE


def span_class(w: int) -> int:
    return (w >> 4) & 15


def grow_spans(s: Seg, end: int) -> bool:
    """Makes the spans before `end` real, if they are said not to be. False if the file system has no room."""
    real = ld64(s.mem, s.procinfo + PI_SPANS_REAL)
    if end <= real:
        return True  # others have made them so; whoever touches one makes sure (`block_capacity`)
    if not s.make_spans_real(end):
        return False
    populate(s.world, s.arena + real * SPAN_SIZE, (end - real) * SPAN_SIZE)
    tries = 0
    while real < end and tries < WALK_MAX:
        if cas64(s.mem, s.procinfo + PI_SPANS_REAL, real, end):
            break
        real = ld64(s.mem, s.procinfo + PI_SPANS_REAL)
        tries = tries + 1
    return True


def claim_span(s: Seg, span: int) -> bool:
    """FREE -> CLAIMED(me)."""
    at = span_at(s, span)
    w = ld64(s.mem, at + SP_WORD)
    if (w & 15) != SPAN_FREE:
        return False
    gen = ((w >> 8) + 1) & GEN_MASK
    return cas64(s.mem, at + SP_WORD, w, word(SPAN_CLAIMED, gen, s.me))


def free_span(s: Seg, span: int, w: int) -> bool:
    """Whatever `w` is -> FREE; the generation stays, it rises with the next claim."""
    return cas64(s.mem, span_at(s, span) + SP_WORD, w, word(SPAN_FREE, (w >> 8) & GEN_MASK, 0))


def take_block(s: Seg, span: int, c: int, first: int) -> int:
    """A block of a SMALL span of class `c`, from its block `first` on; or 0."""
    w = ld64(s.mem, span_at(s, span) + SP_WORD)
    if (w & 15) != SPAN_SMALL or span_class(w) != c:
        return 0
    i = first
    while i < blocks_in(c):
        at = block_record(s, span, i)
        b = ld64(s.mem, at + BK_WORD)
        if (b & 15) == BLOCK_FREE:
            gen = ((b >> 8) + 1) & GEN_MASK
            if cas64(s.mem, at + BK_WORD, b, word(BLOCK_HELD, gen, s.me)):
                # The span's word again: it may have been given back between the two. The compare-and-swap is a full
                # fence; pairs with the one in `uncarve`, which marks the span before it looks at the blocks.
                if ld64(s.mem, span_at(s, span) + SP_WORD) == w:
                    s.hint_span[c] = span
                    s.hint_block[c] = i + 1
                    return reference(span, i)
                st64(s.mem, at + BK_WORD, word(BLOCK_FREE, gen, 0))
                return 0
        i = i + 1
    return 0


def carve(s: Seg, span: int, c: int) -> None:
    """CLAIMED(me) -> SMALL of class `c`. Block words keep their generations; all are free, or the span were not."""
    at = span_at(s, span) + SP_WORD
    w = ld64(s.mem, at)
    gen = (w >> 8) & GEN_MASK
    cas64(s.mem, at, word(SPAN_CLAIMED, gen, s.me), SPAN_SMALL | (c << 4) | (gen << 8))


def uncarve(s: Seg, span: int) -> int:
    """SMALL -> FREE if all its blocks are free. Returns 1 if it was. On the way the span is LEAVING, not CLAIMED: its blocks
    may be in use, and their references hold all the same."""
    at = span_at(s, span) + SP_WORD
    w = ld64(s.mem, at)
    if (w & 15) != SPAN_SMALL:
        return 0
    c = span_class(w)
    gen = ((w >> 8) + 1) & GEN_MASK
    mine = word(SPAN_LEAVING | (c << 4), gen, s.me)
    if not cas64(s.mem, at, w, mine):
        return 0
    # The mark before the look (the compare-and-swap is a full fence): pairs with the second look in `take_block`. Each
    # claimer either sees the mark and lets go, or is seen here.
    i = 0
    while i < blocks_in(c):
        if (ld64(s.mem, block_record(s, span, i) + BK_WORD) & 15) != BLOCK_FREE:
            cas64(s.mem, at, mine, SPAN_SMALL | (c << 4) | (gen << 8))
            return 0
        i = i + 1
    free_span(s, span, mine)
    return 1


def alloc_small(s: Seg, c: int) -> int:
    """A small block of class `c`, or 0.

    Payloads come and go in order: the next free block most often lies behind the last one taken. Then where a block was
    given back last: that memory is warm, and as long as little waits the same few spans serve for ever. With much
    waiting most spans are full: a few are looked into, then a new one is carved; all of them only if there is none."""
    got = take_block(s, s.hint_span[c], c, s.hint_block[c])
    if got != 0:
        return got
    freed = ld64(s.mem, s.procinfo + PI_SPANS_FREED + c * 8)
    if freed != 0 and freed <= s.nr_spans:
        got = take_block(s, freed - 1, c, 0)
        if got != 0:
            return got
    got = find_small(s, c, SPANS_TRIED)
    if got == 0:
        got = carve_next(s, c)
    if got == 0:
        got = find_small(s, c, s.nr_spans)
    if got == 0:
        got = carve_any(s, c)
    return got


def find_small(s: Seg, c: int, most: int) -> int:
    """A small block of class `c` out of the next `most` spans, round and round from where the last look ended; or 0.
    Remembers a FREE span that it meets."""
    real = ld64(s.mem, s.procinfo + PI_SPANS_REAL)
    if real > s.nr_spans:
        real = s.nr_spans
    span = s.look_span[c]
    looked = 0
    got = 0
    while looked < most and looked < real and got == 0:
        looked = looked + 1
        span = span + 1
        if span >= real:
            span = 0
        state = ld64(s.mem, span_at(s, span) + SP_WORD) & 15
        if state == SPAN_SMALL:
            got = take_block(s, span, c, 0)
        elif state == SPAN_FREE:
            s.hint_free = span
    s.look_span[c] = span
    return got


def carve_span(s: Seg, span: int, c: int) -> int:
    """A block of class `c` of a span that was FREE and real; 0 if it was not, or if others were quicker with its
    blocks."""
    if not claim_span(s, span):
        return 0
    carve(s, span, c)
    return take_block(s, span, c, 0)


def carve_next(s: Seg, c: int) -> int:
    """A block of class `c` of the FREE span that was met last, else of the next that nobody has used; or 0."""
    real = ld64(s.mem, s.procinfo + PI_SPANS_REAL)
    got = 0
    if s.hint_free < real and s.hint_free < s.nr_spans:
        got = carve_span(s, s.hint_free, c)
    while got == 0 and real < s.nr_spans:
        if not grow_spans(s, real + 1):
            return 0
        got = carve_span(s, real, c)
        real = real + 1
    return got


def carve_any(s: Seg, c: int) -> int:
    """A block of class `c` of any FREE span; or 0."""
    real = ld64(s.mem, s.procinfo + PI_SPANS_REAL)
    span = 0
    while span < real and span < s.nr_spans:
        got = carve_span(s, span, c)
        if got != 0:
            return got
        span = span + 1
    return 0


def claim_run(s: Seg, first: int, n: int) -> int:
    """Claims `n` spans from `first` on. Returns n, or how many were free before the first that is not (none is kept)."""
    i = 0
    while i < n:
        if not claim_span(s, first + i):
            break
        i = i + 1
    if i == n:
        return n
    got = i
    while i > 0:
        i = i - 1
        free_span(s, first + i, ld64(s.mem, span_at(s, first + i) + SP_WORD))
    return got


def alloc_large(s: Seg, n: int) -> int:
    """A run of `n` spans, or 0."""
    first = 0
    while first + n <= s.nr_spans:
        got = claim_run(s, first, n)
        if got == n:
            if not grow_spans(s, first + n):
                i = n
                while i > 0:
                    i = i - 1
                    free_span(s, first + i, ld64(s.mem, span_at(s, first + i) + SP_WORD))
                return 0
            at = span_at(s, first)
            st64(s.mem, at + SP_SLOT, 0)
            st64(s.mem, at + SP_COUNT, n)
            gen = (ld64(s.mem, at + SP_WORD) >> 8) & GEN_MASK
            wmb()  # the count before the state that says it is there: pairs with the acquire in `free_large`
            st64(s.mem, at + SP_WORD, word(SPAN_LARGE, gen, s.me))
            # Died before or in this loop: the rest still say CLAIMED by us, and are scavenged one by one.
            i = 1
            while i < n:
                body = span_at(s, first + i)
                st64(s.mem, body + SP_HEAD, first)
                wmb()  # whose body before that it is one: pairs with the acquire in `scavenge_span`
                st64(s.mem, body + SP_WORD, word(SPAN_BODY, (ld64(s.mem, body + SP_WORD) >> 8) & GEN_MASK, s.me))
                i = i + 1
            return reference(first, BLOCK_LARGE)
        first = first + got + 1
    return 0


def alloc_block(s: Seg, length: int) -> int:
    """A block of at least `length` bytes, owned by this actor; 0 if the arena is full, even after scavenging."""
    tries = 0
    c = class_of(length)
    while tries < 2:
        if c < SMALL_CLASSES:
            got = alloc_small(s, c)
        else:
            got = alloc_large(s, (length + SPAN_SIZE - 1) // SPAN_SIZE)
        if got != 0:
            return got
        tries = tries + 1
        if tries < 2 and scavenge_arena(s) == 0:
            return 0
    return 0


def block_capacity(s: Seg, ref: int) -> int:
    """How many bytes a block referred to may hold; 0 if there is no such block, or no memory behind it. Every reference is
    checked here before use."""
    span = low32(ref) - 1
    block = ref >> 32
    if low32(ref) == 0 or span >= s.nr_spans:
        return 0
    w = lda64(s.mem, span_at(s, span) + SP_WORD)
    n = u64(1)
    if block == BLOCK_LARGE:
        n = ld64(s.mem, span_at(s, span) + SP_COUNT)
        if (w & 15) != SPAN_LARGE or n == 0 or n > s.nr_spans - span:
            return 0
        capacity = n * SPAN_SIZE
    else:
        # LEAVING: somebody looks whether the span can be freed, and will find this block in use.
        if (w & 15) != SPAN_SMALL and (w & 15) != SPAN_LEAVING:
            return 0
        if span_class(w) >= SMALL_CLASSES or block >= blocks_in(span_class(w)):
            return 0
        capacity = u64(1) << (SMALL_SHIFT + span_class(w))
    if span + n > s.real_spans and not s.make_spans_real(span + n):
        return 0
    return capacity


def block_data(s: Seg, ref: int, capacity: int) -> int:
    """The offset of a block's first byte; `capacity` is what `block_capacity` said of the reference (the span's class is
    not read again: it is shared, and could have changed)."""
    at = s.arena + (low32(ref) - 1) * SPAN_SIZE
    block = ref >> 32
    if block == BLOCK_LARGE:
        return at
    return at + block * capacity


def block_word_at(s: Seg, ref: int) -> int:
    """The offset of the word that says whose a block is; the reference has been checked."""
    span = low32(ref) - 1
    block = ref >> 32
    if block == BLOCK_LARGE:
        return span_at(s, span) + SP_WORD
    return block_record(s, span, block) + BK_WORD


def name_block(s: Seg, ref: int, where: int) -> None:
    """Writes into a block which slot it is for, before that slot is READY (its exchange orders the two)."""
    st64(s.mem, block_word_at(s, ref) + 8, where)


def own_block(s: Seg, ref: int) -> bool:
    """Makes this actor the block's owner: it has TAKEN the message. False if there is no such block in use."""
    at = block_word_at(s, ref)
    w = ld64(s.mem, at)
    state = w & 15
    if state != BLOCK_HELD and state != SPAN_LARGE:
        return False
    return cas64(s.mem, at, w, low32(w) | (s.me << 32))


def free_large(s: Seg, span: int, w: int) -> None:
    """Gives back a LARGE block: the body first, from its end; whoever dies on the way leaves a head whose owner is dead
    and whose slot is DONE, and the scavenger goes on from there."""
    n = ld64(s.mem, span_at(s, span) + SP_COUNT)
    if n > s.nr_spans - span:
        n = 1
    while n > 1:
        n = n - 1
        body = span_at(s, span + n)
        b = lda64(s.mem, body + SP_WORD)
        if (b & 15) == SPAN_BODY and ld64(s.mem, body + SP_HEAD) == span:
            free_span(s, span + n, b)
    free_span(s, span, w)


def return_block(s: Seg, ref: int) -> bool:
    """Gives back a block that this actor owns, and tells nobody. False for a reference to anything else."""
    capacity = block_capacity(s, ref)
    if capacity == 0:
        return False
    at = block_word_at(s, ref)
    w = ld64(s.mem, at)
    if (w >> 32) != s.me:
        return False
    if (ref >> 32) == BLOCK_LARGE:
        free_large(s, low32(ref) - 1, w)
    elif cas64(s.mem, at, w, word(BLOCK_FREE, (w >> 8) & GEN_MASK, 0)):
        # A hint for senders. Written only when it changes: they read this line, and it stays where it is.
        hint = s.procinfo + PI_SPANS_FREED + class_of(capacity) * 8
        if ld64(s.mem, hint) != low32(ref):
            st64(s.mem, hint, low32(ref))
    return True


def free_block(s: Seg, ref: int) -> None:
    """Gives back a block that this actor owns, and tells those who wait for room; a reference to anything else is
    ignored."""
    if return_block(s, ref):
        tell_room(s)
        tell_holders(s)


def slot_holds(s: Seg, where: int, ref: int) -> bool:
    """Whether the slot at a place still needs the block."""
    page = where & PAGE_MASK
    i = (where >> 20) & 0xFFF
    if page == 0 or not is_real(s, page) or i >= s.page_slots:
        return False
    at = page_at(s, page) + PAGE_HEADER + i * SLOT_SIZE
    w = lda64(s.mem, at + SL_WORD)
    state = w & 15
    if ((w >> 8) & GEN_MASK) != (where >> 32) or (state != READY and state != TAKEN):
        return False
    return ld64(s.mem, at + SL_BLOCK) == ref


def scavenge_small(s: Seg, span: int, c: int) -> int:
    """Frees the blocks of one SMALL span that dead owners left."""
    found = 0
    i = 0
    while i < blocks_in(c):
        at = block_record(s, span, i)
        b = lda64(s.mem, at + BK_WORD)
        if (b & 15) == BLOCK_HELD and name_is_dead(s, b >> 32):
            if not slot_holds(s, ld64(s.mem, at + BK_SLOT), reference(span, i)):
                if cas64(s.mem, at + BK_WORD, b, word(BLOCK_FREE, (b >> 8) & GEN_MASK, 0)):
                    found = found + 1
        i = i + 1
    return found


def scavenge_span(s: Seg, span: int) -> int:
    """Frees what dead owners left in one span; returns how much."""
    at = span_at(s, span)
    w = lda64(s.mem, at + SP_WORD)
    state = w & 15
    if state == SPAN_LEAVING and name_is_dead(s, w >> 32):
        # Whoever looked at its blocks died before it could say what it found.
        cas64(s.mem, at + SP_WORD, w, SPAN_SMALL | (span_class(w) << 4) | (((w >> 8) & GEN_MASK) << 8))
        w = lda64(s.mem, at + SP_WORD)
        state = w & 15
    if state == SPAN_SMALL and span_class(w) < SMALL_CLASSES:
        found = scavenge_small(s, span, span_class(w))
        return found + uncarve(s, span)
    if state == SPAN_CLAIMED and name_is_dead(s, w >> 32):
        return 1 if free_span(s, span, w) else 0
    if state == SPAN_LARGE and name_is_dead(s, w >> 32):
        if not slot_holds(s, ld64(s.mem, at + SP_SLOT), reference(span, BLOCK_LARGE)):
            # Ours before its body is touched: two scavengers at it, and the slower one could free the body of the next
            # block that begins here. If we die on the way it has a dead owner again.
            mine = low32(w) | (s.me << 32)
            if cas64(s.mem, at + SP_WORD, w, mine):
                free_large(s, span, mine)
                return 1
    if state == SPAN_BODY and name_is_dead(s, w >> 32):
        # A body whose head is gone: its head was freed by somebody who found it here no more, or never came to be.
        head = ld64(s.mem, at + SP_HEAD)
        if head >= s.nr_spans or (ld64(s.mem, span_at(s, head) + SP_WORD) & 15) != SPAN_LARGE:
            return 1 if free_span(s, span, w) else 0
    return 0


def scavenge_arena(s: Seg) -> int:
    """Looks at every span, those too that were claimed and not yet made real; returns how many blocks or spans came
    back. Slow path."""
    found = 0
    span = 0
    while span < s.nr_spans:
        found = found + scavenge_span(s, span)
        span = span + 1
    if found:
        tell_room(s)
        tell_holders(s)
    return found
