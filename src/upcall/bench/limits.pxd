# Types for `limits.py`. A page and a buffer come as addresses, since they belong to a Python mmap and array.
cimport cython
from libc.stdint cimport uint64_t

from ..machine.door cimport copy_in, futex_wait, futex_wake, ld64, lda32, lda64, mb, mem_t, now_ns, st64, str32, str64

cdef uint64_t PING, PONG, SLOTS, SLOT_BYTES, RING_SLOTS

cdef inline mem_t memory(uint64_t address) noexcept nogil:
    return <mem_t><size_t>address

@cython.locals(m=mem_t, out=mem_t, i=uint64_t, begin=uint64_t)
cpdef futex_ping(uint64_t page, uint64_t trips, uint64_t times)

@cython.locals(m=mem_t, i=uint64_t)
cpdef futex_pong(uint64_t page, uint64_t trips)

@cython.locals(m=mem_t, begin=uint64_t)
cpdef uint64_t futex_tell(uint64_t page, uint64_t turn)

@cython.locals(m=mem_t)
cpdef uint64_t futex_await(uint64_t page, uint64_t turn)

@cython.final
cdef class Slots:
    cdef uint64_t page, turn

@cython.locals(m=mem_t, out=mem_t, i=uint64_t, k=uint64_t, turn=uint64_t, begin=uint64_t)
cpdef line_ping(uint64_t page, uint64_t blocks, uint64_t per_block, uint64_t times)

@cython.locals(m=mem_t, i=uint64_t)
cpdef line_pong(uint64_t page, uint64_t trips)

@cython.locals(m=mem_t, i=uint64_t, free=uint64_t, slot=uint64_t, begin=uint64_t)
cpdef uint64_t ring_fill(uint64_t page, uint64_t count)

@cython.locals(m=mem_t, i=uint64_t, slot=uint64_t, total=uint64_t)
cpdef uint64_t ring_drain(uint64_t page, uint64_t count)
