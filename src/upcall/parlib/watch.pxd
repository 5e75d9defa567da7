cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..kern.const cimport (
    EVQ_MBOX, MAX_VCORES, NO_VCORE, PI_WATCH, VCPD_HANDLED, VCPD_NOTIFS, VCPD_NOTIF_PENDING, VCPD_PARKS, VC_AWAY, VC_OFFLINE
)
from ..kern.event cimport get_vcpd_mbox_priv, get_vcpd_mbox_pub
from ..kern.layout cimport Seg, evq_at, map_at, vcpd_at
from ..kern.proc cimport is_running, num_vcores, startcore, vc_state
from ..machine.door cimport ld32, ld64, lda64, mb, str32, u64
from .mbox cimport has_bits, has_ready
from .recover cimport num_queues

@cython.final
cdef class Watch:
    cdef uint64_t word[1024]
    cdef uint64_t done[1024]
    cdef uint64_t since[1024]

@cython.locals(vcpd=uint64_t, w=uint64_t, done=uint64_t)
cpdef uint64_t still_for(Seg s, Watch seen, uint64_t vcoreid, uint64_t now) noexcept nogil
@cython.locals(pub=uint64_t, priv=uint64_t, n=uint64_t, queue=uint64_t, own=uint64_t)
cpdef bint mail_waits(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(n=uint64_t, v=uint64_t, still=uint64_t, state=uint64_t)
cpdef uint64_t next_still(Seg s, Watch seen, uint64_t first, uint64_t now, uint64_t after) noexcept nogil
@cython.locals(n=uint64_t, v=uint64_t, state=uint64_t)
cpdef bint somebody_moves(Seg s, Watch seen, uint64_t now, uint64_t after) noexcept nogil
@cython.locals(n=uint64_t, v=uint64_t, state=uint64_t, found=bint)
cpdef bint anything_to_watch(Seg s) noexcept nogil
cpdef bint watch_sleeps(Seg s) noexcept nogil
cpdef void watch_wakes(Seg s) noexcept nogil
