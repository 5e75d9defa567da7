cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..machine.door cimport (
    cas32, cas64, fand32, for32, futex_wake, interrupt, ld32, ld64, lda64, low32, mb, rmb, st64, str32, u64
)
from .const cimport (
    AS_SYSCALLS, AS_WAKES, NO_VCORE, PI_CORES, PI_LOCK, PI_NUM_VCORES, PI_STATE, PI_WANT_ROOM, PI_WATCH, P_CREATED, P_DYING,
    P_NEW, P_RUNNABLE_M, P_RUNNING_M, P_RUNNING_S, P_WAITING, VCPD_FLAGS, VCPD_HOST, VCPD_NOTIF_DISABLED,
    VCPD_NOTIF_PENDING, VC_AWAY, VC_BULK, VC_CAN_RCV_MSG, VC_IN_POLL, VC_K_LOCK, VC_LONG_HANDLER, VC_NOHOST,
    VC_OFFLINE, VC_ONLINE, VC_PREEMPTED, VC_PREEMPTED_FLAG, VC_SEQ_MASK, VC_STARTED, VC_STARTING, WALK_MAX
)
from .layout cimport Seg, count, map_at, vcpd_at
from .pages cimport name_is_dead

cpdef uint64_t vc_state(uint64_t w) noexcept nogil
cpdef uint64_t vc_word(uint64_t state, uint64_t seq, uint64_t name) noexcept nogil
cpdef uint64_t vc_next(uint64_t w, uint64_t state, uint64_t name) noexcept nogil
@cython.locals(n=uint64_t)
cpdef uint64_t num_vcores(Seg s) noexcept nogil
cpdef bint is_running(uint64_t state) noexcept nogil
cpdef bint vcore_is_mapped(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(state=uint64_t)
cpdef bint vcore_will_look(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(n=uint64_t, v=uint64_t, found=uint64_t)
cpdef uint64_t list_first(Seg s, uint64_t state, uint64_t after) noexcept nogil
@cython.locals(n=uint64_t, v=uint64_t, running=uint64_t)
cpdef uint64_t nr_running(Seg s) noexcept nogil
cpdef uint64_t proc_state(Seg s) noexcept nogil
cpdef bint is_mcp(Seg s) noexcept nogil
@cython.locals(at=uint64_t, tries=uint64_t, w=uint64_t)
cpdef void set_proc_state(Seg s, uint64_t state) noexcept nogil
cpdef uint64_t running_state(Seg s) noexcept nogil
cpdef void now_running(Seg s) noexcept nogil
cpdef bint can_start(uint64_t state) noexcept nogil
@cython.locals(at=uint64_t, tries=uint64_t, w=uint64_t, state=uint64_t, mine=uint64_t, polls=bint, woken=uint64_t)
cpdef bint startcore(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(cores=uint64_t)
cpdef bint may_start_more(Seg s) noexcept nogil
@cython.locals(round=uint64_t, state=uint64_t, v=uint64_t)
cpdef bint start_one_more(Seg s, uint64_t first) noexcept nogil
@cython.locals(state=uint64_t)
cpdef void proc_wakeup(Seg s) noexcept nogil
@cython.locals(vcpd=uint64_t)
cpdef void proc_notify(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(at=uint64_t, wanted=uint64_t, n=uint64_t, v=uint64_t)
cpdef void tell_holders(Seg s) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t, state=uint64_t, offline=uint64_t)
cpdef bint proc_yield(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t, state=uint64_t)
cpdef void proc_wait(Seg s) noexcept nogil
@cython.locals(at=uint64_t, tries=uint64_t, w=uint64_t, state=uint64_t)
cpdef bint vcore_online(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(name=uint64_t)
cpdef bint host_is_dead(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(host=uint64_t, at=uint64_t, tries=uint64_t, w=uint64_t, old=uint64_t)
cpdef void unhost_vcore(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(at=uint64_t, flags=uint64_t, w=uint64_t, taken=uint64_t)
cpdef bint take_core(Seg s, uint64_t vcoreid, uint64_t state) noexcept nogil
@cython.locals(taken=uint64_t)
cpdef uint64_t proc_preempt_core(Seg s, uint64_t vcoreid) noexcept nogil
@cython.locals(n=uint64_t, v=uint64_t, taken=uint64_t)
cpdef uint64_t proc_preempt_all(Seg s) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t, owner=uint64_t)
cpdef bint proc_lock(Seg s) noexcept nogil
@cython.locals(at=uint64_t, w=uint64_t)
cpdef void proc_unlock(Seg s) noexcept nogil
