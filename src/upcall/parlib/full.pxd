cimport cython
from libc.stdint cimport uint64_t

from ..kern.const cimport ALERT_NONE, ALERT_POLLED, EVQ_ALERT, EV_EVENT, OK, VCPD_FLAGS, VC_FULL
from ..kern.event cimport spam_vcore
from ..kern.layout cimport Seg, evq_at, map_at, vcpd_at
from ..kern.proc cimport can_start, num_vcores, startcore, vc_state, vcore_will_look
from ..machine.door cimport ld32, lda64, wrmb

@cython.locals(alert=uint64_t)
cpdef bint is_told(Seg s, uint64_t queue) noexcept nogil
@cython.locals(v=uint64_t)
cpdef bint has_looker(Seg s, uint64_t mbox) noexcept nogil
@cython.locals(n=uint64_t, v=uint64_t)
cpdef void pass_on(Seg s, uint64_t vcoreid, uint64_t queue, uint64_t ev_flags) noexcept nogil
