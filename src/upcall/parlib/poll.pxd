cimport cython
from libc.stdint cimport uint64_t

from ..kern.const cimport (
    VCPD_BIT, VCPD_FLAGS, VCPD_HOST, VCPD_NOTIF_PENDING, VC_FULL, VC_IN_POLL, VC_NOHOST, VC_OFFLINE, VC_STARTING
)
from ..kern.layout cimport Seg, map_at, vcpd_at
from ..kern.proc cimport vc_next, vc_state
from ..machine.door cimport cas64, fand32, for32, ld64, lda64, mb, st32, st64, u64
from .full cimport pass_on
from .mbox cimport Cursor, news, tell_drainers
from .recover cimport restore_bit
from .vcore cimport VCore, cursor_of, look_everywhere, stop_polling, vcore_entry

cpdef void sleep_in_poll(VCore vc) except *
@cython.locals(s=Seg, at=uint64_t, w=uint64_t)
cpdef bint come_back(VCore vc) except -1
@cython.locals(s=Seg, queue=uint64_t, cur=Cursor)
cpdef void now_full(VCore vc) except *
@cython.locals(s=Seg, vcpd=uint64_t)
cpdef void no_longer_full(VCore vc) except *
@cython.locals(s=Seg, vcpd=uint64_t)
cpdef void bit_done(VCore vc, bint again) except *
cpdef void give_bit_back(VCore vc) except *
