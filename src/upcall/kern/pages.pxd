cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..machine.door cimport (
    alive, cas64, ctz64, faa32, faa64, fand64, for64, futex_wake, ld32, ld64, lda64, mb, populate, rmb, u64
)
from .const cimport (
    AS_SYSCALLS, AS_WORD, FULL, GEN_MASK, LINK_LEAVING, MB_HEAD, MB_UNLINKED, OK, PAGES_CHUNK, PAGE_CLAIMED,
    PAGE_FREE, PAGE_HEADER, PAGE_LINKED, PAGE_MASK, PG_MBOX, PG_NEXT, PG_WORD, PI_PAGES_REAL, PI_POOL_ROOM,
    PI_POOL_WAITERS, SLOT_GEN_MASK, SLOT_MASK, SLOT_SIZE, WALK_MAX
)
from .layout cimport Seg, count, is_real, mbox_at, onward, page_at, slot_record_at, word

@cython.locals(slot=uint64_t, w=uint64_t)
cpdef bint name_is_dead(Seg s, uint64_t name) noexcept nogil
@cython.locals(slot=uint64_t, at=uint64_t, w=uint64_t, gen=uint64_t, after=uint64_t)
cpdef void bury_name(Seg s, uint64_t name) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t, gen=uint64_t)
cpdef bint claim_page(Seg s, uint64_t page) noexcept nogil
cpdef void give_page(Seg s, uint64_t page) noexcept nogil
cpdef void tell_room(Seg s) noexcept nogil
@cython.locals(real=uint64_t, more=uint64_t, i=uint64_t)
cpdef uint64_t grow_pages(Seg s) noexcept nogil
@cython.locals(at=uint64_t, v=uint64_t, tries=uint64_t, bit=uint64_t, page=uint64_t)
cpdef uint64_t take_from_word(Seg s, uint64_t index) noexcept nogil
@cython.locals(words=uint64_t, page=uint64_t, rounds=uint64_t, index=uint64_t)
cpdef uint64_t alloc_page(Seg s) noexcept nogil
cpdef uint64_t page_generation(Seg s, uint64_t page) noexcept nogil
@cython.locals(before=uint64_t)
cpdef void abandon_page(Seg s, uint64_t page, uint64_t gen) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t)
cpdef void link_page(Seg s, uint64_t page, uint64_t gen, uint64_t mbox) noexcept nogil
cpdef bint is_linked(Seg s, uint64_t page, uint64_t gen, uint64_t mbox) noexcept nogil
cpdef void retire_page(Seg s, uint64_t page, uint64_t gen, uint64_t mbox) noexcept nogil
@cython.locals(slots=uint64_t, done=uint64_t, w=uint64_t)
cpdef uint64_t all_done(Seg s, uint64_t page, uint64_t i, uint64_t gen) noexcept nogil
cpdef bint has_left(Seg s, uint64_t here, uint64_t after) noexcept nogil
@cython.locals(at=uint64_t, tries=uint64_t, link=uint64_t)
cpdef bint leave_page(Seg s, uint64_t page, uint64_t gen) noexcept nogil
@cython.locals(found=uint64_t, steps=uint64_t, here=uint64_t, at=uint64_t, link=uint64_t, after=uint64_t, page=uint64_t, following=uint64_t)
cpdef uint64_t unlink_pages(Seg s, uint64_t mbox) noexcept nogil
@cython.locals(left=uint64_t, steps=uint64_t, here=uint64_t, after=uint64_t)
cpdef uint64_t sweep_mbox(Seg s, uint64_t mbox) noexcept nogil
@cython.locals(here=uint64_t, steps=uint64_t, at=uint64_t, after=uint64_t)
cpdef uint64_t reachable(Seg s, uint64_t mbox, uint64_t page, uint64_t gen) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t, state=uint64_t, gen=uint64_t, bit=uint64_t, mbox=uint64_t, leads=uint64_t, leaves=bint)
cpdef uint64_t scavenge_page(Seg s, uint64_t page) noexcept nogil
@cython.locals(real=uint64_t, found=uint64_t, mbox=uint64_t, page=uint64_t)
cpdef uint64_t scavenge_pages(Seg s) noexcept nogil
