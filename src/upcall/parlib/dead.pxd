cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..kern.arena cimport (
    block_capacity, block_data, free_block, name_block, own_block, return_block
)
from ..kern.const cimport (
    ABSENT, AS_SENT, CORRUPT, DONE, EVENT_SPAM_PUBLIC, EVENT_VCORE_PRIVATE, EVQ_FLAGS, EVQ_MAX_REDELIVERIES,
    EVQ_ON_DEATH, GEN_MASK, GONE, INLINE_MAX, NO_VCORE, OK, ON_DEATH_DEAD_LETTER, ON_DEATH_REDELIVER,
    ON_DEATH_REPORT, PAGE_MASK, READY, REDELIVERIES_USUAL, SL_ARG1, SL_ARG2, SL_ARG3, SL_ARG4, SL_BLOCK, SL_FROM,
    SL_INLINE, SL_LEN, SL_QUEUE, SL_TYPE, SL_WORD, TAKEN
)
from ..kern.event cimport post_vcore_event, put_payload, send_event
from ..kern.layout cimport Msg, Seg, count, dead_mbox, evq_at, is_real, word
from ..kern.pages cimport tell_room
from ..kern.ucq cimport advance_head, claim_slot, fill_slot, give_back, slot_at, tell_mbox_room
from ..machine.door cimport bytes_at, cas64, ld16, ld32, ld64, lda64, st16, str64
from .mbox cimport put_back

cpdef uint64_t deaths_of(Seg s, uint64_t at) noexcept nogil
@cython.locals(most=uint64_t, evq=uint64_t, policy=uint64_t)
cpdef uint64_t verdict(Seg s, uint64_t queue, uint64_t deaths) noexcept nogil
@cython.locals(held=uint64_t, capacity=uint64_t)
cpdef uint64_t read_message(Seg s, uint64_t at, Msg msg) noexcept nogil
@cython.locals(status=uint64_t, where=uint64_t, to=uint64_t)
cpdef uint64_t post_letter(Seg s, uint64_t mbox, uint64_t at, Msg msg) noexcept nogil
@cython.locals(at=uint64_t, held=uint64_t)
cpdef void settle_message(Seg s, uint64_t mbox, uint64_t where) noexcept nogil
@cython.locals(i=uint64_t, at=uint64_t, w=uint64_t)
cpdef bint take_letter(Seg s, uint64_t where) noexcept nogil
@cython.locals(status=uint64_t, origin=uint64_t, vcoreid=uint64_t)
cpdef uint64_t send_letter(Seg s, uint64_t at, Msg msg) noexcept nogil
cpdef bint spams(Seg s, uint64_t queue) noexcept nogil
@cython.locals(status=uint64_t)
cpdef uint64_t resend_letter(Seg s, uint64_t where, Msg msg) noexcept nogil
cpdef uint64_t discard_letter(Seg s, uint64_t where) noexcept nogil
