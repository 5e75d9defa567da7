cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..kern.const cimport (
    ALERT_NONE, ALERT_POLLED, BIT_MBOX_SHIFT, BIT_TYPE_MASK, CLAIMED, DONE, EVQ_ALERT, EVQ_MBOX, EV_CHECK_MSGS,
    EV_EVENT, EV_NONE, EV_VCORE_PREEMPT, LIST_TRIES_MAX, MB_BITMAP, MB_BITMAP_WORDS, MB_CHECK_BITS, MB_HEAD, NO_VCORE,
    PAGE_HEADER, PAGE_MASK, PG_NEXT, PI_NR_QUEUES, SLOT_SIZE, SL_QUEUE, SL_TYPE, SL_WORD, VCPD_BIT, VCPD_FLAGS,
    VCPD_HOST, VCPD_NOTIF_PENDING, VC_AWAY, VC_CAN_RCV_MSG, VC_FULL, VC_IN_POLL, VC_LONG_HANDLER, VC_NOHOST, VC_PREEMPTED, VC_STARTING
)
from ..kern.event cimport (
    get_vcpd_mbox_priv, get_vcpd_mbox_pub, send_indir, send_kernel_event, set_bit, spam_public_msg
)
from ..kern.layout cimport Seg, dead_mbox, evq_at, is_real, map_at, mbox_at, onward, page_at, vcpd_at
from ..kern.pages cimport has_left, name_is_dead
from ..kern.proc cimport proc_wait, startcore, take_core, vc_next, vc_state
from ..kern.ucq cimport empty_word
from ..machine.door cimport cas64, fand32, interrupt, ld16, ld32, ld64, lda64, low32, mb, rmb, st32, st64, str32, u64
from .mbox cimport has_bits, recover_mbox, waiting_in

@cython.locals(state=uint64_t)
cpdef bint is_hosted(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(mbox=uint64_t)
cpdef bint has_public_mail(Seg s, uint64_t vcoreid) noexcept nogil
cpdef uint64_t bit_in_hand(uint64_t name, uint64_t mbox, uint64_t ev_type) noexcept nogil
@cython.locals(at=uint64_t, held=uint64_t, mbox=uint64_t)
cpdef uint64_t restore_bit(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(n=uint64_t)
cpdef uint64_t num_queues(Seg s) noexcept nogil
@cython.locals(n=uint64_t, queue=uint64_t, at=uint64_t, alert=uint64_t)
cpdef void take_back(Seg s, uint64_t vcoreid, uint64_t name) noexcept nogil
@cython.locals(n=uint64_t, queue=uint64_t, found=uint64_t, v=uint64_t, own=uint64_t)
cpdef uint64_t recover_vcore(Seg s, uint64_t vcoreid, uint64_t name) noexcept nogil
@cython.locals(host=uint64_t, at=uint64_t, tries=uint64_t, w=uint64_t, old=uint64_t)
cpdef bint host_vcore(Seg s, uint64_t vcoreid) noexcept nogil
cpdef bint show_bits(Seg s, uint64_t mbox) noexcept nogil
@cython.locals(vcpd=uint64_t, name=uint64_t, taken=bint)
cpdef bint preempt_vcore(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(n=uint64_t, queue=uint64_t, v=uint64_t, own=uint64_t, state=uint64_t)
cpdef void announce(Seg s) noexcept nogil
@cython.locals(ev_type=uint64_t)
cpdef bint is_news(Seg s, uint64_t at) noexcept nogil
@cython.locals(bits=uint64_t, i=uint64_t, here=uint64_t, pages=uint64_t, page=uint64_t, gen=uint64_t, at=uint64_t,
               w=uint64_t, after=uint64_t)
cpdef bint mail_waits(Seg s, uint64_t mbox) noexcept nogil
