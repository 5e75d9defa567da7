cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..machine.door cimport (
    cas64, copy_in, for32, for64, ld32, ld64, lda32, lda64, mb, rmb, st32, str32, u64, wmb, wrmb, xchg32
)
from .arena cimport alloc_block, block_capacity, block_data, return_block
from .const cimport (
    ALERT_DOING, ALERT_DONE, ALERT_POLLED, AS_INDIRS, BAD_MAILBOX, BAD_QUEUE, BAD_TYPE, BAD_VCORE, BUSY, CORRUPT,
    EVENT_INDIR, EVENT_IPI, EVENT_NOMSG, EVENT_NOTHROTTLE, EVENT_ROUNDROBIN, EVENT_SPAM_FLAGS, EVENT_SPAM_PUBLIC,
    EVENT_VCORE_APPRO, EVENT_VCORE_MUST_RUN, EVENT_VCORE_PRIVATE, EVQ_ALERT, EVQ_FLAGS, EVQ_MBOX, EVQ_USED,
    EVQ_VCORE, EV_CHECK_MSGS, EV_EVENT, EV_POSIX_SIGNAL, FULL, GONE, LIST_TRIES_MAX, MAX_NR_EVENT, MB_BITMAP,
    MB_CHECK_BITS, NO_VCORE, OK, P_DYING, P_WAITING, VCPD_FLAGS, VCPD_NOTIF_PENDING, VC_BULK, VC_CAN_RCV_MSG,
    VC_FULL, VC_LONG_HANDLER, VC_NOHOST, VC_OFFLINE, VC_ONLINE
)
from .layout cimport Msg, Seg, count, evq_at, kernel_evt_at, map_at, mbox_at, vcoreid_is_safe, vcpd_at
from .proc cimport (
    can_start, is_mcp, list_first, num_vcores, proc_notify, proc_state, proc_wakeup, start_one_more, startcore,
    vc_state, vcore_is_mapped, vcore_will_look
)
from .ucq cimport send_ucq_msg

cpdef uint64_t get_vcpd_mbox_priv(Seg s, uint64_t vcoreid) noexcept nogil
cpdef uint64_t get_vcpd_mbox_pub(Seg s, uint64_t vcoreid) noexcept nogil
cpdef uint64_t get_vcpd_mbox(Seg s, uint64_t vcoreid, uint64_t ev_flags) noexcept nogil
cpdef uint64_t queue_mbox(Seg s, uint64_t queue) noexcept nogil
cpdef bint can_msg_vcore(Seg s, uint64_t vcoreid) noexcept nogil
cpdef void set_vcore_msgable(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(at=uint64_t, word_at=uint64_t, bit=uint64_t)
cpdef uint64_t set_bit(Seg s, uint64_t mbox, uint64_t ev_type) noexcept nogil
cpdef uint64_t post_ev_msg(Seg s, uint64_t mbox, Msg msg, uint64_t ev_flags) noexcept nogil
@cython.locals(status=uint64_t)
cpdef uint64_t post_vc_msg(Seg s, uint64_t vcoreid, uint64_t mbox, Msg msg, uint64_t ev_flags) noexcept nogil
cpdef void try_notify(Seg s, uint64_t vcoreid, uint64_t ev_flags) noexcept nogil
@cython.locals(mbox=uint64_t, status=uint64_t)
cpdef uint64_t spam_vcore(Seg s, uint64_t vcoreid, Msg msg, uint64_t ev_flags) noexcept nogil
cpdef bint try_spam_vcore(Seg s, uint64_t vcoreid, Msg msg, uint64_t ev_flags) noexcept nogil
@cython.locals(loops=uint64_t, v=uint64_t)
cpdef bint spam_list_member(Seg s, uint64_t list_state, Msg msg, uint64_t ev_flags) noexcept nogil
@cython.locals(n=uint64_t, v=uint64_t)
cpdef uint64_t fallback_vcore(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(tries=uint64_t, v=uint64_t)
cpdef void ultimate_fallback(Seg s, Msg msg, uint64_t vcoreid, uint64_t ev_flags) noexcept nogil
@cython.locals(v=uint64_t)
cpdef void spam_public_msg(Seg s, Msg msg, uint64_t vcoreid, uint64_t ev_flags) noexcept nogil
cpdef void ask_for_help(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(evq=uint64_t, flags=uint64_t, alert=uint64_t, mine=uint64_t, marked=bint, state=uint64_t)
cpdef void send_indir(Seg s, uint64_t queue, uint64_t vcoreid) noexcept nogil
@cython.locals(wanted=uint64_t, n=uint64_t)
cpdef uint64_t pick_vcore(Seg s, uint64_t evq, uint64_t flags, uint64_t vcoreid) noexcept nogil
@cython.locals(capacity=uint64_t)
cpdef uint64_t put_payload(Seg s, Msg msg) noexcept nogil
@cython.locals(evq=uint64_t, flags=uint64_t, wanted=uint64_t, own=uint64_t, status=uint64_t, mcp=bint)
cpdef uint64_t send_event(Seg s, uint64_t queue, Msg msg, uint64_t vcoreid) noexcept nogil
cpdef uint64_t unless_gone(Seg s) noexcept nogil
cpdef void wake_if_private(Seg s, uint64_t vcoreid, uint64_t flags) noexcept nogil
cpdef void look_after(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(queue=uint64_t)
cpdef uint64_t send_kernel_event(Seg s, Msg msg, uint64_t vcoreid) noexcept nogil
@cython.locals(status=uint64_t)
cpdef uint64_t post_vcore_event(Seg s, Msg msg, uint64_t vcoreid, uint64_t ev_flags) noexcept nogil
cpdef uint64_t send_posix_signal(Seg s, Msg msg, uint64_t sig_nr) noexcept nogil
