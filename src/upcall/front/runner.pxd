cimport cython
from libc.stdint cimport int64_t, uint64_t

from ..machine.door cimport forked
from ..kern.const cimport SPAN_SIZE
from ..kern.layout cimport Seg
from .event cimport Budget, Event
from .parts cimport Parcel, PartsSender, contents, pack, unpack
from .tasks cimport COUNT_MASK, DIED, ERROR, HAS_KWARGS, RESULT, WITH_FUNCTION, large_among

cdef class Runner:
    cdef readonly PartsSender out
    cdef public object owner
    cdef object dumps
    cdef uint64_t retries, done_type, limit
    cdef int64_t left
    cdef dict known
    cdef Budget budget
    cdef bint begun
    cdef object nothing
    cdef int run(self, Event ev) except -1
    cdef int fail(self, uint64_t id, object error) except -1
    cdef object function(self, bytes name)
