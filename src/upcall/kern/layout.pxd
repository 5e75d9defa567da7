cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..machine.door cimport ld64, mem_t, src_t, st64, world_t
from .const cimport (
    EVQ_STRIDE, HEADER_SIZE, MBOX_STRIDE, NAME_BYTES, NO_VCORE, OK, PAGE_HEADER, PI_KERNEL_EVTS, PROCINFO_SIZE,
    SLOT_SIZE, SLOT_STRIDE, SMALL_CLASSES, SPAN_SIZE, SPAN_STRIDE, VCPD_STRIDE
)

@cython.final
cdef class Msg:
    cdef public uint64_t ev_type, arg1, arg2, arg3, arg4, queue, length, block
    cdef src_t src
    cpdef void clear(self) noexcept nogil

@cython.final
cdef class Seg:
    cdef mem_t mem
    cdef world_t world
    cdef readonly uint64_t max_vcores, max_queues, max_types, max_slots, page_slots, nr_pages, nr_spans
    cdef readonly uint64_t nr_mboxes, page_size, size
    cdef readonly uint64_t slots, procinfo, vcoremap, vcpds, queues, mboxes, types, bitmap, spans, tables_end
    cdef readonly uint64_t pages, arena
    cdef readonly uint64_t me, my_slot
    cdef public uint64_t vcoreid, why
    cdef uint64_t hint_page, hint_free
    cdef Msg indir
    cdef uint64_t hint_span[7]
    cdef uint64_t hint_block[7]
    cdef uint64_t look_span[7]
    cpdef set_name(self, uint64_t slot, uint64_t generation)

cpdef uint64_t name_of(uint64_t slot, uint64_t generation) noexcept nogil
cpdef uint64_t word(uint64_t state, uint64_t gen, uint64_t owner) noexcept nogil
cpdef uint64_t place(uint64_t page, uint64_t slot, uint64_t gen) noexcept nogil
cpdef bint vcoreid_is_safe(Seg s, uint64_t vcoreid) noexcept nogil
cpdef uint64_t vcpd_at(Seg s, uint64_t vcoreid) noexcept nogil
cpdef uint64_t map_at(Seg s, uint64_t vcoreid) noexcept nogil
cpdef uint64_t evq_at(Seg s, uint64_t queue) noexcept nogil
cpdef uint64_t mbox_at(Seg s, uint64_t mbox) noexcept nogil
cpdef uint64_t dead_mbox(Seg s) noexcept nogil
cpdef uint64_t slot_record_at(Seg s, uint64_t slot) noexcept nogil
cpdef uint64_t page_at(Seg s, uint64_t page) noexcept nogil
cpdef uint64_t span_at(Seg s, uint64_t span) noexcept nogil
cpdef uint64_t kernel_evt_at(Seg s, uint64_t ev_num) noexcept nogil
cpdef void count(Seg s, uint64_t counter, uint64_t by) noexcept nogil
