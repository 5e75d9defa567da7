cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free

cdef enum:
    # Kinds of requests, as in door.py.
    LOAD = 0
    STORE = 1
    CAS = 2
    XCHG = 3
    ADD = 4
    OR = 5
    AND = 6
    FENCE = 7
    WAIT = 8
    WAKE = 9
    ALIVE = 10
    INTERRUPT = 11
    GROW = 12
    NOTE = 13
    REST = 14
    END = 99

cdef uint64_t mix(uint64_t x) noexcept nogil

cdef class Node:
    cdef readonly uint64_t index
    cdef readonly object request
    cdef public Node parent
    cdef public object value, where, error
    cdef public list live            # greenlets that stand here
    cdef public dict edges
    # extra: what a compare-and-swap writes; whether a load acquires, or a store releases; which fence (views.pxd)
    cdef uint64_t kind, offset, word, shift, mask, arg, extra, cached
    cdef Node follows

cdef class Visited:
    cdef uint64_t *slots
    cdef uint64_t size, used
    cdef bint add(self, uint64_t key) except -1
