cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..kern.const cimport (
    ALERT_NONE, ALERT_POLLED, EVENT_NOMSG, EVQ_ALERT, EVQ_MBOX, EV_CHECK_MSGS, EV_EVENT, EV_NONE, EV_VCORE_PREEMPT,
    MB_BITMAP, MB_BITMAP_WORDS, MB_CHECK_BITS, MB_HEAD, NO_VCORE, PAGE_MASK, PI_POOL_WAITERS, PI_STOP, SL_ARG3, SL_QUEUE, SL_TYPE, STOP_NOW, VCPD_BIT, VCPD_FLAGS, VCPD_HOST, VCPD_NOTIF_DISABLED,
    VCPD_NOTIF_PENDING, VC_AWAY, VC_BULK, VC_CAN_RCV_MSG, VC_LONG_HANDLER, VC_NOHOST, VC_PREEMPTED,
    VC_PREEMPTED_FLAG, WALK_MAX
)
from ..kern.event cimport get_vcpd_mbox_priv, get_vcpd_mbox_pub
from ..kern.layout cimport Seg, evq_at, map_at, mbox_at, vcpd_at
from ..kern.proc cimport is_running, proc_yield, start_one_more, vc_state, vcore_online
from ..kern.ucq cimport tidy_mbox
from ..machine.door cimport (
    cas64, ctz64, fand32, fand64, for32, ld16, ld32, ld64, lda64, low32, mb, now_ns, pause,
    st32, st64, str32, u64, xchg64
)
from .full cimport has_looker, is_told, pass_on
from .mbox cimport Cursor, more_waiting, news, put_done, reap_skipped, take, tell_drainers
from .recover cimport announce, bit_in_hand, has_public_mail, is_hosted, num_queues, recover_vcore

cdef class VCore:
    cdef public Seg s
    cdef readonly uint64_t vcoreid
    cdef readonly Cursor pub, priv
    cdef readonly list cursors, active, others
    cdef readonly set threads, tasks
    cdef public uint64_t streak, spin_ns
    cdef public bint in_vcore_context, leaving, full, enough, bit_task
    cpdef int deliver(self, Cursor cur, uint64_t at) except -1
    cpdef int deliver_bit(self, Cursor cur, uint64_t ev_type) except -1
    cpdef int sleep(self) except -1


@cython.locals(cur=Cursor, own=uint64_t)
cpdef Cursor cursor_of(VCore vc, uint64_t queue)
@cython.locals(s=Seg, at=uint64_t, found=uint64_t, i=uint64_t, bits=uint64_t, bit=uint64_t)
cpdef int64_t handle_bits(VCore vc, Cursor cur) except -1
@cython.locals(s=Seg, held=uint64_t, bit=uint64_t, taken=uint64_t)
cpdef int64_t take_bit(VCore vc, Cursor cur, uint64_t ev_type) except -1
cpdef void handle_bit(VCore vc, Cursor cur, uint64_t ev_type) except *
cpdef int64_t handle_mbox(VCore vc, Cursor cur) except -1
@cython.locals(s=Seg, found=uint64_t, at=uint64_t)
cpdef int64_t drain(VCore vc, Cursor cur) except -1
@cython.locals(s=Seg, ev_type=uint64_t, arg=uint64_t)
cpdef bint handle_own(VCore vc, Cursor cur, uint64_t at) except -1
@cython.locals(s=Seg)
cpdef bint must_leave(VCore vc) except -1
cpdef void look_at(VCore vc, uint64_t queue) except *
@cython.locals(s=Seg, at=uint64_t, tries=uint64_t, alert=uint64_t)
cpdef void poll_queue(VCore vc, uint64_t queue) noexcept
@cython.locals(s=Seg)
cpdef void stop_polling(VCore vc, uint64_t queue) noexcept
@cython.locals(s=Seg, n=uint64_t, queue=uint64_t, cur=Cursor, bits_at=uint64_t)
cpdef void look_everywhere(VCore vc) except *
@cython.locals(cur=Cursor)
cpdef int64_t handle_queue(VCore vc, uint64_t queue) except -1
@cython.locals(s=Seg, at=uint64_t, found=uint64_t)
cpdef int64_t handle_events(VCore vc) except -1
@cython.locals(found=uint64_t, v=uint64_t)
cpdef int64_t handle_remote(VCore vc) except -1
@cython.locals(found=uint64_t, i=uint64_t)
cpdef int64_t work(VCore vc) except -1
@cython.locals(s=Seg, state=uint64_t)
cpdef void core_lost(VCore vc) except *
@cython.locals(s=Seg)
cpdef void before_handler(VCore vc, Cursor cur, uint64_t queue, bint slow) noexcept
@cython.locals(s=Seg)
cpdef void after_handler(VCore vc, uint64_t queue, bint slow) noexcept
@cython.locals(s=Seg, flags=uint64_t, queue=uint64_t, cur=Cursor)
cpdef bint vcore_yield(VCore vc) except -1
@cython.locals(s=Seg, queue=uint64_t)
cpdef void vcore_leave(VCore vc) except *
@cython.locals(s=Seg, vcpd=uint64_t)
cpdef bint vcore_entry(VCore vc) except -1
@cython.locals(s=Seg, v=uint64_t)
cpdef void adopt_mail(VCore vc) except *
cpdef void disable_notifs(VCore vc) except *
@cython.locals(s=Seg)
cpdef bint enable_notifs(VCore vc) except -1
@cython.locals(queue=uint64_t, cur=Cursor)
cpdef bint leave_vcore_context(VCore vc) except -1
@cython.locals(s=Seg, name=uint64_t)
cpdef void handle_vc_preempt(VCore vc, uint64_t vcoreid) except *
