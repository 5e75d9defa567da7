cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..machine.door cimport cas64, faa32, ld64, lda32, lda64, rmb, st32, st64, xchg64
from .const cimport (
    GEN_MASK, NR_SOURCES, PI_SOURCES, SOURCE_CLAIMED, SOURCE_FIRING, SOURCE_FREE, SOURCE_GEN_SHIFT, SOURCE_SET,
    SOURCE_SPENT, SR_BASE, SR_COUNT, SR_EVERY, SR_FLAGS, SR_KEY, SR_KIND, SR_MAKER, SR_PID, SR_QUEUE, SR_REPLACES,
    SR_TYPE, SR_VALUE, SR_WORD
)
from .layout cimport Seg, source_at, word
from .pages cimport name_is_dead

cdef uint64_t COUNT_MASK

cpdef uint64_t source_id(uint64_t index, uint64_t gen) noexcept nogil
@cython.locals(index=uint64_t, at=uint64_t, w=uint64_t, state=uint64_t, gen=uint64_t)
cpdef uint64_t claim_source(Seg s) noexcept nogil
@cython.locals(at=uint64_t, gen=uint64_t)
cpdef void write_source(
    Seg s, uint64_t index, uint64_t kind, uint64_t ev_type, uint64_t queue, uint64_t flags, uint64_t value,
    uint64_t base, uint64_t every, uint64_t pid
) noexcept nogil
@cython.locals(at=uint64_t, gen=uint64_t)
cpdef uint64_t set_source(Seg s, uint64_t index) noexcept nogil
@cython.locals(index=uint64_t, w=uint64_t)
cpdef uint64_t source_state(Seg s, uint64_t ident) noexcept nogil
cpdef uint64_t source_changes(Seg s) noexcept nogil
@cython.locals(i=uint64_t, w=uint64_t, state=uint64_t)
cpdef uint64_t next_source(Seg s, uint64_t index) noexcept nogil
@cython.locals(index=uint64_t, gen=uint64_t, at=uint64_t, w=uint64_t, state=uint64_t)
cpdef bint drop_source(Seg s, uint64_t ident) noexcept nogil
@cython.locals(index=uint64_t, gen=uint64_t, at=uint64_t, w=uint64_t, state=uint64_t)
cpdef bint begin_firing(Seg s, uint64_t ident) noexcept nogil
@cython.locals(index=uint64_t, gen=uint64_t, at=uint64_t, done=bint)
cpdef bint end_firing(Seg s, uint64_t ident, uint64_t more, uint64_t after) noexcept nogil
@cython.locals(index=uint64_t, gen=uint64_t, at=uint64_t, c=uint64_t)
cpdef void add_count(Seg s, uint64_t ident, uint64_t more) noexcept nogil
@cython.locals(at=uint64_t)
cpdef void set_source_key(Seg s, uint64_t index, uint64_t key, uint64_t replaces) noexcept nogil
