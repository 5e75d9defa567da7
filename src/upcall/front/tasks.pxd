cimport cython
from libc.stdint cimport int64_t, uint64_t

from ..machine.door cimport cas64, forked, futex_wait, futex_wake, ld32, ld64, lda64, now_ns
from ..kern.const cimport (
    BUSY, FULL, NO_VCORE, OK, SL_ARG1, SL_ARG2, SL_ARG3, SL_ARG4, SPAN_SIZE, VCPD_DROPPED, VCPD_HANDLED, VC_OFFLINE, VC_STARTING
)
from ..kern.layout cimport Seg, map_at
from ..kern.proc cimport is_running, startcore, vc_next, vc_state
from ..parlib.mbox cimport Cursor, put_done
from ..parlib.spin cimport watch
from ..parlib.vcore cimport vcore_entry, vcore_yield, work
from .dispatch cimport Dispatcher, spin_in_turns
from .event cimport Budget, Event, fill_event
from .parts cimport Parcel, PartsSender, contents, pack, unpack

# What an answer is, in its `arg2`.
cdef enum:
    RESULT = 0
    ERROR = 1   # what the task raised
    DIED = 2    # workers have died with it too often
    DEATH = 3   # no answer yet: `arg4` tells of one that died, pid | status << 32
# In a task's `arg1`, beside the number of its buffers.
cdef enum:
    COUNT_MASK = 0x3FFF
    WITH_FUNCTION = 0x4000  # its pickle is (function, args, kwargs); else the function's name is before it
    HAS_KWARGS = 0x8000     # its pickle is (args, kwargs)

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()

cdef bint large_among(object values) except -1

cdef class TaskState:
    cdef public object _state
    cdef object condition, waiters, callbacks, value, error
    cdef object payload
    cdef uint64_t kind, at, head, count
    cdef readonly Inbox inbox
    cdef readonly uint64_t id
    cdef readonly object call, death
    cdef readonly bint sent
    cdef Parcel parcel
    cdef uint64_t flags, prefix
    cdef int read(self) except -1
    cdef int answer(self, uint64_t kind, object payload, uint64_t head, uint64_t count) except -1

cdef class Inbox(Dispatcher):
    cdef readonly PartsSender out
    cdef readonly object owner, make, broken
    cdef readonly dict futures
    cdef readonly object overflow, slow
    cdef readonly uint64_t in_flight, window, limit
    cdef public object dumps
    cdef public bint by_name
    cdef uint64_t last_id, task_type
    cdef dict known
    cdef Budget budget
    cdef bint leading, poked
    cdef public bint closing, over
    cdef uint64_t attendant
    cdef public int64_t patience
    cdef bytes name_of(self, object fn)
    cdef bint send(self, TaskState f) except -1
    cdef int feed(self) except -1
    cdef int settle(self, TaskState f, uint64_t kind, object payload, uint64_t head, uint64_t count) except -1
    cdef int come_online(self) except -1
    cdef int leave(self) except -1
    cdef bint lead_for(self, TaskState f, int64_t most_ns) except -1
