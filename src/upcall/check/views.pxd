cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

cdef class Views:
    cdef uint64_t n, nwords, wide, record, total, room
    cdef uint8_t *now        # views, counts, messages: one run of bytes, so that a moment can be kept and compared
    cdef uint8_t *kept       # a stack of such moments
    cdef uint64_t kept_used, kept_room
    cdef uint16_t *slots     # where each word's history is; NONE: it has none
    cdef uint16_t *words     # and whose each is

    cdef uint8_t *view(self, uint64_t which) noexcept
    cdef uint8_t *message(self, uint64_t number) noexcept
    cdef uint64_t first(self, uint64_t slot) noexcept
    cdef uint64_t used(self) noexcept
    cdef int begin(self, uint64_t nwords, uint8_t *shared, uint64_t *memory) except -1
    cdef uint64_t choices(self, uint64_t i, uint64_t slot, bint fenced) noexcept
    cdef uint64_t value(self, uint64_t slot, uint64_t back) noexcept
    cdef uint64_t read(self, uint64_t i, uint64_t slot, uint64_t back, bint acquire) noexcept
    cdef int write(self, uint64_t i, uint64_t slot, uint64_t value, bint release, bint goes_on) except -1
    cdef void fence(self, uint64_t i, uint64_t kind) noexcept
    cdef void forget(self, uint64_t living, uint64_t *touched) noexcept
    cdef uint64_t key(self) noexcept
    cdef int keep(self) except -1
    cdef void back(self) noexcept
    cdef int grow(self, uint64_t needed) except -1

cdef void _join(uint8_t *into, const uint8_t *other, uint64_t wide) noexcept nogil
cdef void _lower(uint8_t *at, uint64_t by) noexcept nogil

cdef enum:
    NONE = 0xFFFF
    RELEASE_FENCE = 1
    ACQUIRE_FENCE = 2
    FULL_FENCE = 3
