cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc

from .nodes cimport END, Node, mix
from .views cimport Views

cdef enum:
    # An actor's status.
    RUNS = 0
    ASLEEP = 1
    WOKEN = 2
    STOPPED = 3
    DEAD = 4
    # Entries of the undo log: kind | a << 8, b.
    U_NODE = 0
    U_WORD = 1
    U_STATUS = 2
    U_HEAD = 3
    U_TAIL = 4
    U_NOTE = 5
    U_LAST = 6
    U_INTERRUPTED = 7
    U_DIED = 8
    U_HALTED = 9
    U_VIEWS = 10

cdef class Moment:
    cdef public object plan, model, limits, tell, state, trace
    cdef public list programs
    cdef public dict stale_reads     # in a replay: step -> how many newer stores it could have read
    cdef readonly uint64_t n, accesses
    cdef public uint64_t deaths, stops
    cdef bint tso, ra, bounded, stale
    cdef Views views
    cdef uint64_t choice
    cdef uint64_t words
    cdef uint64_t *memory
    cdef uint64_t *touched
    cdef uint64_t *written
    cdef uint8_t *shared
    cdef list nodes, tables, noted
    cdef uint64_t[16] status
    cdef uint64_t[16] head
    cdef uint64_t[16] tail
    cdef uint64_t[16] room
    cdef uint64_t **stores
    cdef uint64_t mortal
    cdef uint64_t hash, died, halted, last, used
    cdef uint64_t[2] interrupted
    cdef uint64_t *undo
    cdef uint64_t undone, undo_room
    cdef uint64_t *moves
    cdef uint64_t nmoves, moves_room
    cdef object end_at

    cdef void push(self, uint64_t kind, uint64_t a, uint64_t b) noexcept
    cdef uint64_t read(self, uint64_t i, Node node) noexcept
    cdef void write(self, uint64_t word, uint64_t shift, uint64_t mask, uint64_t value) noexcept
    cdef int touch(self, uint64_t word, uint64_t i, bint writes) except -1
    cdef uint64_t key(self) noexcept
    cdef uint64_t visible(self) noexcept
    cdef void back(self, uint64_t mark) except *
    cdef int begin(self) except -1
