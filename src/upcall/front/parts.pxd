cimport cython
from cpython.buffer cimport Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t

from ..machine.door cimport copy_in, src_t
from ..kern.arena cimport alloc_block, block_capacity, block_data, return_block
from ..kern.const cimport CORRUPT, FULL, INLINE_MAX, NO_VCORE, OK
from ..kern.layout cimport Msg
from .event cimport Budget, Event
from .port cimport Sender

cdef extern from "Python.h":
    Py_buffer *PyMemoryView_GET_BUFFER(object view)

@cython.final
cdef class Parcel:
    cdef readonly bytes head
    cdef readonly list buffers
    cdef readonly uint64_t size

@cython.final
cdef class Kept:
    cdef list buffers

cdef Parcel pack(object dumps, object value, bytes before=*)
cdef object contents(Event ev, Budget budget)
cdef object unpack(object loads, object payload, uint64_t at, uint64_t head, uint64_t count)

cdef class PartsSender(Sender):
    cdef Parcel parcel
    cdef uint64_t offer(self, uint64_t number, uint64_t arg1, uint64_t arg2, uint64_t arg3, uint64_t arg4, Parcel parcel) noexcept
    cdef int send_parcel(self, uint64_t number, uint64_t arg1, uint64_t arg2, uint64_t arg3, uint64_t arg4, Parcel parcel) except -1
    cdef int fill(self, uint64_t number, uint64_t arg1, uint64_t arg2, uint64_t arg3, uint64_t arg4, Parcel parcel) noexcept
