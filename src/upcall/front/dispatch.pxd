cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport malloc

from ..machine.door cimport faa32, forked, ld16, ld32, ld64, now_ns, pause, prefetchw, st64
from ..kern.const cimport (
    FAST_STREAK, LONG_NS, NO_VCORE, OK, ON_DEATH_DEAD_LETTER, ON_DEATH_REDELIVER, PI_STOP, PI_WANT_ROOM, SLOT_SIZE, SL_QUEUE,
    SL_TYPE, VCPD_BATCHES, VCPD_DEAD_LETTERS, VCPD_DROPPED, VCPD_ERRORS, VCPD_HANDLED, VCPD_PARKS, VCPD_REDELIVERED, VCPD_REPORTED,
    VCPD_SYSCALLS, VCPD_UNHANDLED, VCPD_WAKEUPS, VC_AWAY, VC_OFFLINE, WATCH_MAX
)
from ..kern.layout cimport Msg, Seg, map_at, vcpd_at
from ..kern.proc cimport is_running, startcore, vc_next, vc_state
from ..kern.ucq cimport slot_at
from ..parlib.dead cimport deaths_of, post_letter, settle_message, verdict
from ..parlib.mbox cimport Cursor, more_waiting, put_back, put_done, take, take_like, tell_drainers
from ..parlib.poll cimport bit_done, give_bit_back, no_longer_full, now_full
from ..parlib.spin cimport Watches, spin, watch
from ..parlib.vcore cimport (
    VCore, after_handler, before_handler, cursor_of, disable_notifs, handle_bits, poll_queue, vcore_entry, vcore_yield, work
)
from .port cimport wait
from .event cimport Event, EventBatch, fill_event, read_event
from .hand cimport Hand

cdef extern from "Python.h":
    bint PyCoro_CheckExact(object o)
    PyObject *PyDict_GetItemWithError(object d, object key) except? NULL
    Py_ssize_t Py_REFCNT(object o)

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef int wait_ns(uint64_t ns) noexcept
cdef bint spin_in_turns(Seg s, uint64_t vcoreid, Watches watches, uint64_t n, uint64_t deadline) noexcept nogil

cdef class Dispatcher(VCore):
    cdef readonly object names, report
    cdef dict handlers, batches, table, batch_table
    cdef unsigned char[1024] fast
    cdef uint64_t vcpd, last_key
    cdef object last_handler
    cdef Event spare
    cdef public object in_uthread_context, interrupted, start_task
    cdef public Hand ready
    cdef public uint64_t max_tasks, blocked_ns
    cdef readonly uint64_t in_flight
    cdef uint64_t until, look_on_until
    cdef Watches watches
    cdef Msg letter
    cdef list held
    cpdef int deliver(self, Cursor cur, uint64_t at) except -1
    cpdef int deliver_bit(self, Cursor cur, uint64_t ev_type) except -1
    cdef object find(self, object key)
    cdef int finish(self, Cursor cur, uint64_t where, Event ev) except -1
    cdef void bump(self, uint64_t counter, uint64_t by) noexcept
    cdef int drop(self, Cursor cur, uint64_t where, uint64_t queue) except -1
    cdef bint lay_aside(self, uint64_t mbox, uint64_t where, uint64_t queue) except -1
    cpdef bint retry_held(self) except -1
    cpdef int give_back(self) except -1
    cdef int nobody(self, Event ev) except -1
    cdef object run(self, Cursor cur, uint64_t queue, uint64_t number, object handler, object ev)
    cdef bint is_awaitable(self, object got) except -1
    cdef int keep(self, Cursor cur, uint64_t where, uint64_t queue, object event, object awaitable, object handler) except -1
    cpdef void done_with(self, Hand hand, bint again) except *
    cpdef void failed(self, object event, object error) except *
    cpdef int64_t look(self) except -1
    cdef int deliver_batch(self, Cursor cur, uint64_t where, object key, uint64_t number, uint64_t queue) except -1
    cpdef int run_thread(self, uint64_t queue) except -1
    cdef int let_signals_in(self) except -1
    cpdef int turn(self) except -1
    cpdef bint idle(self) except -1
    cpdef int sleep(self) except -1
