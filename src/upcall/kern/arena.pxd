cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..machine.door cimport cas64, ld64, lda64, low32, populate, st64, u64, wmb
from .const cimport (
    BK_SLOT, BK_WORD, BLOCK_FREE, BLOCK_HELD, BLOCK_LARGE, BLOCK_STRIDE, GEN_MASK, PAGE_HEADER,
    PAGE_MASK, PI_SPANS_FREED, PI_SPANS_REAL, READY, SLOT_SIZE, SL_BLOCK, SL_WORD, SMALL_CLASSES, SMALL_SHIFT, SPANS_TRIED,
    SPAN_BODY, SPAN_CLAIMED, SPAN_FREE, SPAN_LARGE, SPAN_LEAVING, SPAN_SIZE, SPAN_SMALL, SP_BLOCKS, SP_COUNT, SP_HEAD,
    SP_SLOT, SP_WORD, TAKEN, WALK_MAX
)
from .layout cimport Seg, is_real, page_at, span_at, word
from .pages cimport name_is_dead, tell_room
from .proc cimport tell_holders

@cython.locals(c=uint64_t)
cpdef uint64_t class_of(uint64_t length) noexcept nogil
cpdef uint64_t blocks_in(uint64_t c) noexcept nogil
cpdef uint64_t reference(uint64_t span, uint64_t block) noexcept nogil
cpdef uint64_t block_record(Seg s, uint64_t span, uint64_t block) noexcept nogil
cpdef uint64_t span_class(uint64_t w) noexcept nogil
@cython.locals(real=uint64_t, tries=uint64_t)
cpdef bint grow_spans(Seg s, uint64_t end) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t, gen=uint64_t)
cpdef bint claim_span(Seg s, uint64_t span) noexcept nogil
cpdef bint free_span(Seg s, uint64_t span, uint64_t w) noexcept nogil
@cython.locals(w=uint64_t, i=uint64_t, at=uint64_t, b=uint64_t, gen=uint64_t)
cpdef uint64_t take_block(Seg s, uint64_t span, uint64_t c, uint64_t first) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t, gen=uint64_t)
cpdef void carve(Seg s, uint64_t span, uint64_t c) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t, c=uint64_t, gen=uint64_t, mine=uint64_t, i=uint64_t)
cpdef uint64_t uncarve(Seg s, uint64_t span) noexcept nogil
@cython.locals(got=uint64_t, freed=uint64_t)
cpdef uint64_t alloc_small(Seg s, uint64_t c) noexcept nogil
@cython.locals(real=uint64_t, span=uint64_t, looked=uint64_t, got=uint64_t, state=uint64_t)
cpdef uint64_t find_small(Seg s, uint64_t c, uint64_t most) noexcept nogil
cpdef uint64_t carve_span(Seg s, uint64_t span, uint64_t c) noexcept nogil
@cython.locals(real=uint64_t, got=uint64_t)
cpdef uint64_t carve_next(Seg s, uint64_t c) noexcept nogil
@cython.locals(real=uint64_t, span=uint64_t, got=uint64_t)
cpdef uint64_t carve_any(Seg s, uint64_t c) noexcept nogil
@cython.locals(i=uint64_t, got=uint64_t)
cpdef uint64_t claim_run(Seg s, uint64_t first, uint64_t n) noexcept nogil
@cython.locals(first=uint64_t, got=uint64_t, at=uint64_t, gen=uint64_t, i=uint64_t, body=uint64_t)
cpdef uint64_t alloc_large(Seg s, uint64_t n) noexcept nogil
@cython.locals(tries=uint64_t, c=uint64_t, got=uint64_t)
cpdef uint64_t alloc_block(Seg s, uint64_t length) noexcept nogil
@cython.locals(span=uint64_t, block=uint64_t, w=uint64_t, n=uint64_t, capacity=uint64_t)
cpdef uint64_t block_capacity(Seg s, uint64_t ref) noexcept nogil
@cython.locals(at=uint64_t, block=uint64_t)
cpdef uint64_t block_data(Seg s, uint64_t ref, uint64_t capacity) noexcept nogil
@cython.locals(span=uint64_t, block=uint64_t)
cpdef uint64_t block_word_at(Seg s, uint64_t ref) noexcept nogil
cpdef void name_block(Seg s, uint64_t ref, uint64_t where) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t, state=uint64_t)
cpdef bint own_block(Seg s, uint64_t ref) noexcept nogil
@cython.locals(n=uint64_t, body=uint64_t, b=uint64_t)
cpdef void free_large(Seg s, uint64_t span, uint64_t w) noexcept nogil
@cython.locals(capacity=uint64_t, at=uint64_t, w=uint64_t, hint=uint64_t)
cpdef bint return_block(Seg s, uint64_t ref) noexcept nogil
cpdef void free_block(Seg s, uint64_t ref) noexcept nogil
@cython.locals(page=uint64_t, i=uint64_t, at=uint64_t, w=uint64_t, state=uint64_t)
cpdef bint slot_holds(Seg s, uint64_t where, uint64_t ref) noexcept nogil
@cython.locals(found=uint64_t, i=uint64_t, at=uint64_t, b=uint64_t)
cpdef uint64_t scavenge_small(Seg s, uint64_t span, uint64_t c) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t, state=uint64_t, found=uint64_t, head=uint64_t, mine=uint64_t)
cpdef uint64_t scavenge_span(Seg s, uint64_t span) noexcept nogil
@cython.locals(found=uint64_t, span=uint64_t)
cpdef uint64_t scavenge_arena(Seg s) noexcept nogil
