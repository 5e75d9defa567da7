cimport cython
from cpython.buffer cimport Py_buffer, PyBuffer_FillInfo
from libc.stdint cimport uint64_t
from libc.stdlib cimport free

from ..machine.door cimport copy_words, forked, ld16, ld32, ld64
from ..kern.arena cimport block_capacity, block_data, free_block, own_block
from ..kern.const cimport (
    INLINE_MAX, SL_ARG1, SL_ARG2, SL_ARG3, SL_ARG4, SL_BLOCK, SL_INLINE, SL_LEN, SL_QUEUE, SL_TYPE, SL_WORD
)
from ..kern.layout cimport Seg
from ..kern.ucq cimport slot_at
from ..parlib.mbox cimport Cursor, put_back, put_done

@cython.final
cdef class Budget:
    cdef readonly uint64_t most, held

@cython.final
@cython.no_gc
cdef class Event:
    cdef Seg s
    cdef object names
    cdef readonly uint64_t type_number, arg1, arg2, arg3, arg4, redeliveries
    cdef readonly bint is_bit
    cdef uint64_t queue_number, length, block
    cdef char *data
    cdef int exports
    cdef bint done, counted
    cdef Budget budget
    cdef char inline[88]
    cdef void release(self) noexcept
    cdef void let_go(self) noexcept

cdef Event read_event(Seg s, object names, uint64_t at)
cdef bint fill_event(Seg s, Event ev, uint64_t at) noexcept
cdef bint take_payload(Seg s, Event ev, uint64_t block) noexcept

@cython.final
cdef class EventBatch:
    cdef Seg s
    cdef object names
    cdef uint64_t *places
    cdef Py_ssize_t n
    cdef bint done
    cdef dict kept
    cdef object event(self, Py_ssize_t i)
    cdef void settle(self, Cursor cur) noexcept
    cdef int put_back(self, Cursor cur) except -1
    cdef int release_kept(self) except -1
