cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..kern.const cimport (
    MB_CHECK_BITS, MB_RESCAN, NO_VCORE, PI_STOP, READY, SL_WORD, VCPD_NOTIF_PENDING, WATCH_MAX
)
from ..kern.layout cimport Seg, mbox_at, vcpd_at, word
from ..kern.ucq cimport slot_at
from ..machine.door cimport ld32, lda64, now_ns, pause
from .mbox cimport Cursor, news
from .vcore cimport VCore, cursor_of

@cython.final
cdef class Watches:
    cdef uint64_t at[WATCH_MAX]
    cdef uint64_t word[WATCH_MAX]

@cython.locals(s=Seg, pending=uint64_t, rounds=uint64_t, k=uint64_t)
cpdef bint spin(Seg s, uint64_t vcoreid, Watches watches, uint64_t n, uint64_t deadline_ns) noexcept nogil
@cython.locals(n=uint64_t, queue=uint64_t, cur=Cursor, mbox=uint64_t, rescan=uint64_t, k=uint64_t, at=uint64_t, w=uint64_t)
cpdef int64_t watch(VCore vc, Watches watches) except -1
