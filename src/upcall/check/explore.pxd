cimport cython
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc

from .model cimport DIE, FLUSH, STEP, STOP, Model
from .nodes cimport Visited

cdef enum:
    LOOK_EVERY = 0x7FF   # so many moves (less one), and limits are looked at
    WALK_MAX = 20000     # so many moves, and a random run is ended
    PATIENCE = 200       # so many moves of one actor in a row, and it waits for another

cdef class Explorer(Model):
    cdef uint64_t *levels
    cdef uint64_t *done
    cdef Visited checked     # what checks of any state have looked at
    cdef uint64_t depth, room_levels, ends, made, patience

    cdef bint one_walk(self, object chance, object longest, object depth) except -1
    cdef int one_pass(self, object verdict) except -1
    cdef bint enter(self, Visited visited, dict path) except -1
    cdef bint next_move(self, Visited visited, dict path) except -1
    cdef bint enough(self, object verdict, uint64_t states) except -1
    cdef object taken(self)
    cdef bint alone(self, uint64_t since) noexcept
