cimport cython
from libc.stdint cimport uint64_t

from ..kern.const cimport PI_STATE, PI_STOP, P_DYING, P_WAITING, VCPD_NOTIF_PENDING
from ..kern.layout cimport Seg, vcpd_at
from ..kern.proc cimport set_proc_state, startcore
from ..machine.door cimport cas64, faa32, interrupt, lda64, st32
from .mbox cimport has_bits, recover_mbox, waiting_in
from .recover cimport mail_waits

cpdef void tell_to_stop(Seg s, uint64_t how) noexcept nogil
cpdef void nudge(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(waiting=uint64_t, mbox=uint64_t)
cpdef uint64_t something_waits(Seg s) noexcept nogil
@cython.locals(mbox=uint64_t, at=uint64_t, w=uint64_t)
cpdef bint end_process(Seg s) noexcept nogil
