cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc

from .nodes cimport (
    ADD, ALIVE, AND, CAS, END, FENCE, GROW, INTERRUPT, LOAD, NOTE, OR, REST, STORE, WAIT, WAKE, XCHG, Node, Visited, mix
)

cdef enum:
    # An actor's status.
    RUNS = 0
    ASLEEP = 1
    WOKEN = 2
    STOPPED = 3
    DEAD = 4
    # Kinds of moves; a move is actor | kind << 8.
    STEP = 0
    FLUSH = 1
    DIE = 2
    STOP = 3
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
    DIED = 64            # interrupt number DIED + i is raised when actor i dies: what a supervisor sleeps on
    LOCAL_MAX = 20000    # so many accesses in a row that nobody else can see: an endless loop
    EAGAIN = 11

cdef class Model:
    cdef public object plan, model, limits, tell, state, trace
    cdef public list programs
    cdef readonly uint64_t n, accesses
    cdef public uint64_t deaths, stops
    cdef bint tso, bounded, stale
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
    cdef int start(self) except -1
    cdef void flush(self, uint64_t i) noexcept
    cdef int settle(self, uint64_t i) except -1
    cdef int step(self, uint64_t i) except -1
    cdef uint64_t access(self, uint64_t i, Node node) except? 0x5A5A5A5A
    cdef uint64_t read(self, uint64_t i, Node node) noexcept
    cdef void write(self, uint64_t word, uint64_t shift, uint64_t mask, uint64_t value) noexcept
    cdef int touch(self, uint64_t word, uint64_t i, bint writes) except -1
    cdef bint can_step(self, uint64_t i) noexcept
    cdef uint64_t list_moves(self) noexcept
    cdef void add_move(self, uint64_t i, uint64_t kind) noexcept
    cdef int move(self, uint64_t what) except -1
    cdef uint64_t key(self) noexcept
    cdef void back(self, uint64_t mark) except *
    cdef uint64_t wake(self, uint64_t offset, uint64_t most) noexcept
    cdef int note(self, object what) except -1
    cdef void set_interrupt(self, uint64_t number, bint on) noexcept
