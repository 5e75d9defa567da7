cimport cython
from cpython.buffer cimport (
    Py_buffer, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport errno
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport int64_t, uint64_t

from ..machine.door cimport (
    arm, close_all_held, close_held, disarm, faa32, forget_wait, forked, futex_wait, ld32, ld64, lda32, lda64, mb, mem_t,
    open_held, set_wake_fd, src_t, st64, still_armed, str32, str64, taken_from, wake_fd, watch_forks, world_base,
    world_free, world_locks, world_new, world_open, world_probe, world_t
)
from ..kern.arena cimport free_block
from ..kern.const cimport (
    AS_SENT, AS_WAITS, EVENT_INDIR, EVENT_NOMSG, EVENT_ROUNDROBIN, EVENT_SPAM_PUBLIC, EVENT_VCORE_PRIVATE, EVQ_FLAGS,
    EVQ_MBOX, EVQ_ON_FULL, EVQ_VCORE, FULL, GONE, INLINE_MAX, NO_VCORE, OK, ON_FULL_BIT, ON_FULL_RAISE, PI_STATE,
    P_DYING, P_WAITING, SPAN_SIZE
)
from ..kern.event cimport (
    fallback_vcore, post_vcore_event, put_payload, send_event, send_indir, send_kernel_event, send_posix_signal,
    set_bit, unless_gone
)
from ..kern.layout cimport Msg, Seg, count, evq_at, slot_record_at
from ..kern.proc cimport proc_state, startcore
from ..kern.ucq cimport room_word, send_ucq_some, stop_wanting, want_room

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()

cdef object NO_ARG1, NO_ARG2, NO_ARG3, NO_ARG4

@cython.locals(error=int, ours=int, former=int, now=int, armed=bint)
cdef int wait(Seg s, uint64_t at, uint64_t seen, uint64_t instead, int64_t timeout_ns) except -1

@cython.final
cdef class Mapping:
    cdef Py_buffer view
    cdef bint held
    cdef int take(self, object buffer) except -1

@cython.final
cdef class Attachment:
    cdef readonly Seg s
    cdef world_t world
    cpdef Seg seg(self, uint64_t slot, uint64_t generation)
    cpdef bint forked(self)
    cdef int check(self, uint64_t at, uint64_t width) except -1

cdef view_of(object payload)
cdef uint64_t integer(str name, uint64_t bits, object value) except? 0xFFFF

cdef class Sender:
    cdef readonly Attachment attachment
    cdef readonly Seg s
    cdef readonly object owner
    cdef dict types
    cdef object last_type
    cdef uint64_t last_number
    cdef readonly uint64_t queue, flags, on_full, mbox, longest
    cdef uint64_t counter
    cdef readonly uint64_t thread
    cdef Msg msg
    cdef uint64_t number(self, object type) except? 0xFFFF
    cdef int check(self) except -1
    @cython.final
    cdef void wake(self) noexcept
    @cython.final
    cdef uint64_t put(self, Msg msg, uint64_t vcore) noexcept
    cdef uint64_t take_block(self, Msg msg) noexcept
    @cython.locals(at=uint64_t, seen=uint64_t, status=uint64_t)
    cdef uint64_t put_waiting(self, Msg msg, uint64_t vcore) except? 0xFFFF
    cdef uint64_t put_bit(self, Msg msg, uint64_t vcore) noexcept
    @cython.final
    cdef int set_args(self, Msg msg, object arg1, object arg2, object arg3, object arg4) except -1
    @cython.final
    cdef int send_filled(self, Msg msg, uint64_t wanted) except -1
    @cython.final
    cdef int check_flags(self, Msg msg) except -1
    cdef int send_buffer(self, Msg msg, object payload, uint64_t wanted) except -1
    cdef int flush(self, uint64_t quickly) except -1
