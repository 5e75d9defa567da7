cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..kern.const cimport (
    CLAIMED, DONE, GEN_MASK, MAX_SLOTS, MB_BITMAP, MB_BITMAP_WORDS, MB_CHECK_BITS, MB_HEAD, MB_LIMIT, MB_RESCAN,
    MB_TAIL, MB_UNLINKED, NOT_SEEN, PAGE_HEADER, PAGE_MASK, PG_NEXT, PI_DRAINERS, PI_DRAIN_SEQ, READY, SKIP_ASK,
    SLOT_SIZE, SL_QUEUE, SL_TYPE, SL_WORD, TAKEN, WALK_MAX
)
from ..kern.layout cimport Seg, dead_mbox, is_real, mbox_at, onward, page_at, place, word
from ..kern.pages cimport has_left, link_page, name_is_dead, page_generation
from ..kern.ucq cimport advance_head, count_open, empty_word, give_back, slot_at, slot_number, tell_mbox_room, tidy_mbox
from ..machine.door cimport cas64, faa32, faa64, futex_wake, ld16, ld32, ld64, lda64, mb, rmb, st32, str64

@cython.final
cdef class Cursor:
    cdef readonly uint64_t mbox, page, gen, i, rescan, limited, nskipped, asks, watch_at, watch_word, started, unlinked, walked
    cdef public uint64_t taken
    cdef uint64_t skipped[MAX_SLOTS]

@cython.locals(at=uint64_t, head=uint64_t)
cpdef bint restart(Seg s, Cursor cur) noexcept nogil
@cython.locals(left=uint64_t, left_gen=uint64_t, at=uint64_t, link=uint64_t, after=uint64_t)
cpdef bint turn_page(Seg s, Cursor cur) noexcept nogil
@cython.locals(at=uint64_t)
cpdef uint64_t take_this(Seg s, Cursor cur, uint64_t where, uint64_t w) noexcept nogil
@cython.locals(kept=uint64_t, k=uint64_t, got=uint64_t, where=uint64_t, w=uint64_t)
cpdef uint64_t take_skipped(Seg s, Cursor cur) noexcept nogil
@cython.locals(found=uint64_t, k=uint64_t, at=uint64_t, w=uint64_t)
cpdef uint64_t reap_skipped(Seg s, Cursor cur) noexcept nogil
cpdef bint skip(Seg s, Cursor cur) noexcept nogil
@cython.locals(at=uint64_t)
cpdef bint chain_changed(Seg s, Cursor cur) noexcept nogil
@cython.locals(turns=uint64_t, lost=bint, slots=uint64_t, at=uint64_t, w=uint64_t, state=uint64_t, got=uint64_t)
cpdef uint64_t take(Seg s, Cursor cur) noexcept nogil
@cython.locals(k=uint64_t)
cpdef bint skipped_ready(Seg s, Cursor cur) noexcept nogil
@cython.locals(slots=uint64_t, at=uint64_t, w=uint64_t, got=uint64_t)
cpdef uint64_t take_like(Seg s, Cursor cur, uint64_t ev_type, uint64_t queue) noexcept nogil
@cython.locals(w=uint64_t)
cpdef bint more_waiting(Seg s, Cursor cur) noexcept nogil
cpdef bint news(Seg s, Cursor cur) noexcept nogil
@cython.locals(at=uint64_t)
cpdef void put_done(Seg s, Cursor cur, uint64_t where) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t)
cpdef bint put_back(Seg s, uint64_t mbox, uint64_t where) noexcept nogil
@cython.locals(w=uint64_t, state=uint64_t, gen=uint64_t, times=uint64_t)
cpdef uint64_t recover_slot(Seg s, uint64_t at, uint64_t deaths) noexcept nogil
@cython.locals(found=uint64_t, again=bint, i=uint64_t, slot=uint64_t, w=uint64_t)
cpdef uint64_t recover_page(Seg s, uint64_t here, uint64_t deaths) noexcept nogil
@cython.locals(at=uint64_t, here=uint64_t, found=uint64_t, again=bint, pages=uint64_t, deaths=uint64_t, here_found=uint64_t, after=uint64_t, gen=uint64_t)
cpdef uint64_t recover_mbox(Seg s, uint64_t mbox) noexcept nogil
@cython.locals(i=uint64_t)
cpdef bint has_bits(Seg s, uint64_t mbox) noexcept nogil
@cython.locals(here=uint64_t, pages=uint64_t, at=uint64_t, i=uint64_t, w=uint64_t, after=uint64_t)
cpdef bint has_ready(Seg s, uint64_t mbox) noexcept nogil
@cython.locals(head=uint64_t, page=uint64_t, i=uint64_t, w=uint64_t)
cpdef bint waiting_in(Seg s, uint64_t mbox, uint64_t upto) noexcept nogil
@cython.locals(at=uint64_t, here=uint64_t, pages=uint64_t, page=uint64_t, gen=uint64_t, after=uint64_t, i=uint64_t, number=uint64_t)
cpdef uint64_t mbox_end(Seg s, uint64_t mbox) noexcept nogil
cpdef void tell_drainers(Seg s) noexcept nogil
