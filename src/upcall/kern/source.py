"""The table of sources: what the kernel would have sent, kept where no death loses it.

An alarm, a tap, a watch, a call that is under way is one record. Whoever has the watcher's role sends their events; it, or
whoever made the source, may die at any step. One word of a record says whose it is:

    FREE    -> CLAIMED   by compare-and-swap, with the maker's name; the generation rises
    CLAIMED -> SET       by its maker, when all fields are written
    CLAIMED -> FREE      by whoever finds its maker dead: nobody knew it yet
    SET     -> FIRING    by who is about to send its event, with its name; one of several wins
    FIRING  -> FIRING    with another name, by who finds that one dead: its event may come twice then
    FIRING  -> SET, SPENT, FREE  by who has sent it
    SET, FIRING, SPENT -> FREE   by who cancels it; an event that is being sent may still come

Fields are written while the record is CLAIMED, and never again in that generation, but for SR_COUNT, which has the
generation in it and is changed by compare-and-swap: whoever comes late with a record's former life changes nothing. An id is
(index, generation), never used again until the generation comes round.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from ..machine.door import cas64, faa32, ld64, lda32, lda64, rmb, st32, st64, xchg64
    from .const import (
        GEN_MASK,
        NR_SOURCES,
        PI_SOURCES,
        SOURCE_CLAIMED,
        SOURCE_FIRING,
        SOURCE_FREE,
        SOURCE_GEN_SHIFT,
        SOURCE_SET,
        SOURCE_SPENT,
        SR_BASE,
        SR_COUNT,
        SR_EVERY,
        SR_FLAGS,
        SR_KEY,
        SR_KIND,
        SR_MAKER,
        SR_PID,
        SR_QUEUE,
        SR_REPLACES,
        SR_TYPE,
        SR_VALUE,
        SR_WORD,
    )
    from .layout import Seg, source_at, word
    from .pages import name_is_dead

COUNT_MASK = (1 << 40) - 1


def source_id(index: int, gen: int) -> int:
    """What events carry of a source."""
    return index | (gen << SOURCE_GEN_SHIFT)


def claim_source(s: Seg) -> int:
    """A record to write, CLAIMED(me); NR_SOURCES if there is none. What makers that died had claimed is used again."""
    for index in range(NR_SOURCES):
        at = source_at(s, index) + SR_WORD
        w = lda64(s.mem, at)
        state = w & 15
        if state == SOURCE_FREE or (state == SOURCE_CLAIMED and name_is_dead(s, w >> 32)):
            gen = ((w >> 8) + 1) & GEN_MASK
            if gen == 0:
                gen = 1
            if cas64(s.mem, at, w, word(SOURCE_CLAIMED, gen, s.me)):
                return index
    return NR_SOURCES


def write_source(
    s: Seg, index: int, kind: int, ev_type: int, queue: int, flags: int, value: int, base: int, every: int, pid: int
) -> None:
    """Fills a record that is CLAIMED(me). `queue` is a number + 1, or 0."""
    at = source_at(s, index)
    gen = (ld64(s.mem, at + SR_WORD) >> 8) & GEN_MASK
    st32(s.mem, at + SR_KIND, kind)
    st32(s.mem, at + SR_TYPE, ev_type)
    st32(s.mem, at + SR_QUEUE, queue)
    st32(s.mem, at + SR_FLAGS, flags)
    st64(s.mem, at + SR_VALUE, value)
    st64(s.mem, at + SR_BASE, base)
    st64(s.mem, at + SR_EVERY, every)
    st64(s.mem, at + SR_KEY, 0)
    st64(s.mem, at + SR_REPLACES, 0)
    st64(s.mem, at + SR_MAKER, s.me)
    st64(s.mem, at + SR_PID, pid)
    st64(s.mem, at + SR_COUNT, gen << 40)  # a former generation's late counter fails, or is overwritten


def set_source(s: Seg, index: int) -> int:
    """CLAIMED(me) -> SET. The source's id. Nothing to compare: while we live the record is nobody else's."""
    at = source_at(s, index) + SR_WORD
    gen = (ld64(s.mem, at) >> 8) & GEN_MASK
    # The exchange is a full fence, the fields before SET: pairs with the acquire in `next_source`.
    xchg64(s.mem, at, word(SOURCE_SET, gen, 0))
    faa32(s.mem, s.procinfo + PI_SOURCES, 1)
    return source_id(index, gen)


def source_state(s: Seg, ident: int) -> int:
    """The state of a source; FREE for an id that is none, or not any more. Who has read its fields asks afterwards whether
    they were this source's."""
    index = ident & ((1 << SOURCE_GEN_SHIFT) - 1)
    if index >= NR_SOURCES:
        return SOURCE_FREE
    rmb()  # the fields before the word: pairs with `claim_source`, whose exchange comes before the next life's fields
    w = lda64(s.mem, source_at(s, index) + SR_WORD)
    return w & 15 if ((w >> 8) & GEN_MASK) == (ident >> SOURCE_GEN_SHIFT) else SOURCE_FREE


def source_changes(s: Seg) -> int:
    """How often the table has changed. Who remembers it, then walks, need not walk again while it stays."""
    # An acquire, the number before the records: pairs with those who change a record, and count it then. Without it the
    # number could be new, and a record read behind it be old: nobody would look again.
    return lda32(s.mem, s.procinfo + PI_SOURCES)


def next_source(s: Seg, index: int) -> int:
    """The id of the next source from `index` on that is SET, FIRING or SPENT; 0: none. It lies at id & 0xFFFF."""
    for i in range(index, NR_SOURCES):
        w = lda64(s.mem, source_at(s, i) + SR_WORD)
        state = w & 15
        if state == SOURCE_SET or state == SOURCE_FIRING or state == SOURCE_SPENT:
            return source_id(i, (w >> 8) & GEN_MASK)
    return 0


def drop_source(s: Seg, ident: int) -> bool:
    """SET, FIRING or SPENT -> FREE, whoever fires it. False if it was over already."""
    index = ident & ((1 << SOURCE_GEN_SHIFT) - 1)
    gen = ident >> SOURCE_GEN_SHIFT
    if index >= NR_SOURCES:
        return False
    at = source_at(s, index) + SR_WORD
    while True:
        w = lda64(s.mem, at)
        state = w & 15
        if ((w >> 8) & GEN_MASK) != gen or state == SOURCE_FREE or state == SOURCE_CLAIMED:
            return False
        if cas64(s.mem, at, w, word(SOURCE_FREE, gen, 0)):
            faa32(s.mem, s.procinfo + PI_SOURCES, 1)
            return state != SOURCE_SPENT


def begin_firing(s: Seg, ident: int) -> bool:
    """SET -> FIRING(me), or a dead one's FIRING: its event is ours to send. False if it is not."""
    index = ident & ((1 << SOURCE_GEN_SHIFT) - 1)
    gen = ident >> SOURCE_GEN_SHIFT
    if index >= NR_SOURCES:
        return False
    at = source_at(s, index) + SR_WORD
    w = lda64(s.mem, at)
    state = w & 15
    if ((w >> 8) & GEN_MASK) != gen:
        return False
    if state != SOURCE_SET and not (state == SOURCE_FIRING and name_is_dead(s, w >> 32)):
        return False
    return cas64(s.mem, at, w, word(SOURCE_FIRING, gen, s.me))


def end_firing(s: Seg, ident: int, more: int, after: int) -> bool:
    """The event is out, or was not sent: counts `more`, then FIRING(me) -> `after`: SET, SPENT or FREE. False if it was
    cancelled meanwhile."""
    index = ident & ((1 << SOURCE_GEN_SHIFT) - 1)
    gen = ident >> SOURCE_GEN_SHIFT
    if index >= NR_SOURCES:
        return False
    at = source_at(s, index)
    add_count(s, ident, more)
    done = cas64(s.mem, at + SR_WORD, word(SOURCE_FIRING, gen, s.me), word(after, gen, 0))
    if after != SOURCE_SET:
        faa32(s.mem, s.procinfo + PI_SOURCES, 1)
    return done


def add_count(s: Seg, ident: int, more: int) -> None:
    """Adds to the count of a source, if it is still that one."""
    index = ident & ((1 << SOURCE_GEN_SHIFT) - 1)
    gen = ident >> SOURCE_GEN_SHIFT
    if index >= NR_SOURCES or more == 0:
        return
    at = source_at(s, index) + SR_COUNT
    c = lda64(s.mem, at)
    while (c >> 40) == gen and not cas64(s.mem, at, c, (gen << 40) | ((c + more) & COUNT_MASK)):
        c = lda64(s.mem, at)


def set_source_key(s: Seg, index: int, key: int, replaces: int) -> None:
    """Of a record that is CLAIMED(me): which of a definition's sources it is, and in whose place it comes."""
    at = source_at(s, index)
    st64(s.mem, at + SR_KEY, key)
    st64(s.mem, at + SR_REPLACES, replaces)
