cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ..machine.door cimport grow, ld64, mem_t, src_t, st64, world_t
from .const cimport (
    AS_SYSCALLS, EVQ_STRIDE, HEADER_SIZE, LINK_LEAVING, MBOX_STRIDE, NAME_BYTES, NO_VCORE, NR_SOURCES, OK, PAGES_CHUNK,
    PAGE_HEADER, PI_KERNEL_EVTS, PROCINFO_SIZE, SLOT_SIZE, SLOT_STRIDE, SMALL_CLASSES, SOURCE_STRIDE, SPAN_SIZE,
    SPAN_STRIDE, VCPD_STRIDE
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
    cdef readonly uint64_t slots, procinfo, vcoremap, vcpds, queues, mboxes, types, sources, bitmap, spans, tables_end
    cdef readonly uint64_t pages, arena
    cdef readonly uint64_t me, my_slot
    cdef public uint64_t vcoreid, why
    cdef readonly uint64_t real_pages, real_spans
    cdef uint64_t hint_page, hint_free
    cdef Msg indir
    cdef uint64_t hint_span[7]
    cdef uint64_t hint_block[7]
    cdef uint64_t look_span[7]
    cpdef set_name(self, uint64_t slot, uint64_t generation)
    cpdef bint make_pages_real(self, uint64_t end) noexcept nogil
    cpdef bint make_spans_real(self, uint64_t end) noexcept nogil
    cdef bint back(self, uint64_t at, uint64_t size) noexcept nogil

cpdef uint64_t name_of(uint64_t slot, uint64_t generation) noexcept nogil
cpdef bint vcoreid_is_safe(Seg s, uint64_t vcoreid) noexcept nogil
cpdef void count(Seg s, uint64_t counter, uint64_t by) noexcept nogil

# One-line functions, put into their callers by the C compiler; `inline.py` reads them for everyone who is not compiled.

cdef inline uint64_t word(uint64_t state, uint64_t gen, uint64_t owner) noexcept nogil:
    """A slot's or page's word: what it is, in which generation, and whose."""
    return state | (gen << 8) | (owner << 32)

cdef inline uint64_t place(uint64_t page, uint64_t slot, uint64_t gen) noexcept nogil:
    """A place in a mailbox: `page` counts from 1, so 0 is nowhere."""
    return page | (slot << 20) | (gen << 32)

cdef inline uint64_t onward(uint64_t link) noexcept nogil:
    """The place that a page's link leads to, whether or not that page is leaving its chain."""
    return link & ~LINK_LEAVING

cdef inline uint64_t vcpd_at(Seg s, uint64_t vcoreid) noexcept nogil:
    return s.vcpds + vcoreid * VCPD_STRIDE

cdef inline uint64_t map_at(Seg s, uint64_t vcoreid) noexcept nogil:
    return s.vcoremap + vcoreid * 8

cdef inline uint64_t evq_at(Seg s, uint64_t queue) noexcept nogil:
    return s.queues + queue * EVQ_STRIDE

cdef inline uint64_t mbox_at(Seg s, uint64_t mbox) noexcept nogil:
    return s.mboxes + mbox * MBOX_STRIDE

cdef inline uint64_t dead_mbox(Seg s) noexcept nogil:
    """The number of the mailbox for dead letters, the last one. No vcore looks at it."""
    return s.nr_mboxes - 1

cdef inline uint64_t slot_record_at(Seg s, uint64_t slot) noexcept nogil:
    return s.slots + slot * SLOT_STRIDE

cdef inline uint64_t page_at(Seg s, uint64_t page) noexcept nogil:
    """The page with number `page`, counted from 1."""
    return s.pages + (page - 1) * s.page_size

cdef inline bint is_real(Seg s, uint64_t page) noexcept nogil:
    """Whether a page may be touched whose number was read from the segment: it is backed by memory, now if not before."""
    return page <= s.real_pages or s.make_pages_real(page)

cdef inline uint64_t source_at(Seg s, uint64_t index) noexcept nogil:
    return s.sources + index * SOURCE_STRIDE

cdef inline uint64_t span_at(Seg s, uint64_t span) noexcept nogil:
    return s.spans + span * SPAN_STRIDE

cdef inline uint64_t kernel_evt_at(Seg s, uint64_t ev_num) noexcept nogil:
    return s.procinfo + PI_KERNEL_EVTS + ev_num * 4
