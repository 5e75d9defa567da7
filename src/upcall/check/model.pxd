cimport cython
from libc.stdint cimport uint64_t
from libc.stdlib cimport realloc

from .moment cimport (
    ASLEEP, DEAD, RUNS, STOPPED, U_DIED, U_HALTED, U_HEAD, U_INTERRUPTED, U_LAST, U_NODE, U_NOTE, U_STATUS, U_TAIL, U_VIEWS,
    WOKEN, Moment
)
from .nodes cimport (
    ADD, ALIVE, AND, CAS, END, FENCE, GROW, INTERRUPT, LOAD, NOTE, OR, REST, STORE, WAIT, WAKE, XCHG, Node, mix
)
from .views cimport FULL_FENCE, NONE

cdef enum:
    # Kinds of moves; a move is actor | kind << 8 | choice << 16: of how many stores newer than the one it reads.
    STEP = 0
    FLUSH = 1
    DIE = 2
    STOP = 3
    DIED = 64            # interrupt number DIED + i is raised when actor i dies: what a supervisor sleeps on
    LOCAL_MAX = 20000    # so many accesses in a row that nobody else can see: an endless loop
    EAGAIN = 11

cdef class Model(Moment):
    cdef int start(self) except -1
    cdef void flush(self, uint64_t i) noexcept
    cdef int settle(self, uint64_t i) except -1
    cdef int step(self, uint64_t i) except -1
    cdef uint64_t access(self, uint64_t i, Node node) except? 0x5A5A5A5A
    cdef bint can_step(self, uint64_t i) noexcept
    cdef uint64_t list_moves(self) noexcept
    cdef void add_move(self, uint64_t i, uint64_t kind) noexcept
    cdef int move(self, uint64_t what) except -1
    cdef int make(self, uint64_t what) except -1
    cdef int forget(self) except -1
    cdef void add_older(self, uint64_t i) noexcept
    cdef uint64_t access_history(self, uint64_t i, Node node) except? 0x5A5A5A5A
    cdef uint64_t wake(self, uint64_t offset, uint64_t most) noexcept
    cdef int note(self, object what) except -1
    cdef void set_interrupt(self, uint64_t number, bint on) noexcept

cdef uint64_t changed(Node node, uint64_t before) noexcept
