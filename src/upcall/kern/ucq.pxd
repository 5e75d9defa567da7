cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..machine.door cimport (
    cas64, copy_in, faa32, futex_wake, ld32, ld64, lda32, lda64, mb, prefetchw, rmb, st16, st32, st64, str64, u64,
    xchg64
)
from .arena cimport name_block
from .const cimport (
    AS_SYSCALLS, BUSY, CLAIMED, CORRUPT, FULL, GEN_MASK, INLINE_MAX, LINK_LEAVING, MB_HEAD, MB_LIMIT, MB_ROOM,
    MB_ROOM_WAITERS, MB_TAIL, OK, PAGE_FREE, PAGE_HEADER, PAGE_LINKED, PAGE_MASK, PG_MBOX, PG_NEXT, PG_SEQ,
    PG_WORD, PI_POOL_ROOM, READY,
    SLOT_SIZE, SL_ARG1, SL_ARG2, SL_ARG3, SL_ARG4, SL_BLOCK, SL_INLINE, SL_LEN, SL_QUEUE, SL_TYPE, SL_WORD,
    TAKEN, WALK_MAX
)
from .layout cimport Msg, Seg, count, is_real, mbox_at, onward, page_at, place, word
from .pages cimport (
    abandon_page, all_done, alloc_page, leave_page, link_page, page_generation, retire_page, sweep_mbox, unlink_pages
)
from .proc cimport tell_holders

cpdef uint64_t empty_word(uint64_t gen) noexcept nogil
@cython.locals(at=uint64_t, head=uint64_t, page=uint64_t, gen=uint64_t)
cpdef uint64_t first_page(Seg s, uint64_t mbox) noexcept nogil
@cython.locals(at=uint64_t, after=uint64_t, seq=uint64_t, fresh=uint64_t, fresh_gen=uint64_t)
cpdef uint64_t next_page(Seg s, uint64_t mbox, uint64_t page, uint64_t gen) noexcept nogil
@cython.locals(at=uint64_t, here=uint64_t, restarts=uint64_t, steps=uint64_t, page=uint64_t, i=uint64_t, gen=uint64_t, empty=uint64_t, slots=uint64_t, w=uint64_t)
cpdef uint64_t claim_slot(Seg s, uint64_t mbox) noexcept nogil
cpdef void fill_slot(Seg s, uint64_t at, Msg msg) noexcept nogil
cpdef uint64_t slot_at(Seg s, uint64_t where) noexcept nogil
@cython.locals(at=uint64_t, head=uint64_t, tail=uint64_t, front=uint64_t, back=uint64_t, pages=uint64_t, used=uint64_t, before=uint64_t)
cpdef uint64_t mbox_depth(Seg s, uint64_t mbox) noexcept nogil
cpdef bint is_full(Seg s, uint64_t mbox, uint64_t limit) noexcept nogil
cpdef uint64_t slot_number(Seg s, uint64_t page, uint64_t i) noexcept nogil
@cython.locals(head=uint64_t, here=uint64_t, found=uint64_t, pages=uint64_t, page=uint64_t, gen=uint64_t, i=uint64_t, last=uint64_t, number=uint64_t, lost=bint, w=uint64_t, after=uint64_t)
cpdef uint64_t count_open(Seg s, uint64_t mbox, uint64_t upto, uint64_t most) noexcept nogil
@cython.locals(limit=uint64_t, where=uint64_t, at=uint64_t)
cpdef uint64_t send_ucq_msg(Seg s, uint64_t mbox, Msg msg) noexcept nogil
@cython.locals(limit=uint64_t, where=uint64_t, at=uint64_t)
cpdef uint64_t send_ucq_some(Seg s, uint64_t mbox, Msg msg) noexcept nogil
@cython.locals(limit=uint64_t)
cpdef uint64_t room_word(Seg s, uint64_t mbox) noexcept nogil
cpdef uint64_t want_room(Seg s, uint64_t at) noexcept nogil
cpdef void stop_wanting(Seg s, uint64_t at) noexcept nogil
@cython.locals(at=uint64_t, moved=uint64_t, freed=uint64_t, steps=uint64_t, head=uint64_t, page=uint64_t, gen=uint64_t, first=uint64_t, i=uint64_t, link=uint64_t, after=uint64_t)
cpdef uint64_t advance_head(Seg s, uint64_t mbox) noexcept nogil
cpdef void give_back(Seg s, uint64_t mbox, uint64_t page, uint64_t gen) noexcept nogil
cpdef void tidy_mbox(Seg s, uint64_t mbox) noexcept nogil
@cython.locals(at=uint64_t)
cpdef void tell_mbox_room(Seg s, uint64_t mbox) noexcept nogil
