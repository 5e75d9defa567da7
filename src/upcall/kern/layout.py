"""Where everything is: the geometry of a segment and the offsets that follow from it.

A segment's header states seven numbers; every offset is computed from them, in one place, so a header cannot point
anywhere by itself. What else is read from shared memory and used as an index (queue, mailbox, page, span, vcore, attach
slot) is read once into a local, compared with the number that this file holds in *private* memory, and only then turned
into an offset. There are no shared pointers to check, only indices, and an index cannot be misaligned.

`Seg` is one actor's view of one segment: the mapping, the geometry, and the actor's own name.
"""

from __future__ import annotations

import cython

from .inline import __getattr__  # noqa: F401 - to Python, the functions of `layout.pxd` are here too

if not cython.compiled:
    from ..machine.door import grow, ld64, st64
    from .const import (
        AS_SYSCALLS,
        EVQ_STRIDE,
        HEADER_SIZE,
        MBOX_STRIDE,
        NAME_BYTES,
        NO_VCORE,
        NR_SOURCES,
        OK,
        PAGE_HEADER,
        PAGES_CHUNK,
        PROCINFO_SIZE,
        SLOT_SIZE,
        SLOT_STRIDE,
        SMALL_CLASSES,
        SOURCE_STRIDE,
        SPAN_SIZE,
        SPAN_STRIDE,
        VCPD_STRIDE,
    )
    from .inline import slot_record_at as slot_record_at  # noqa: PLC0414 - its importers have it from here


def name_of(slot: int, generation: int) -> int:
    """An owner's name: attach slot and its generation, 32 bits, never 0 (generations start at 1)."""
    return slot | (generation << 12)


class Msg:
    """One message on its way in: the seed's `event_msg` with a payload. `src` is the payload's first byte (bytes in the
    interpreted life), `length` its number of bytes; `block` the arena block that already holds them, or 0."""

    def __init__(self):
        self.clear()

    def clear(self):
        """All fields zero, no payload."""
        self.ev_type = 0
        self.arg1 = 0
        self.arg2 = 0
        self.arg3 = 0
        self.arg4 = 0
        self.queue = 0
        self.length = 0
        self.block = 0
        if not cython.compiled:
            self.src = b""


class Seg:
    """One actor's view of a segment. All sizes in bytes, all offsets from the segment's start.

    `mem` is the mapping (a :class:`~upcall.machine.door.Memory` in the interpreted life), `world` what the door needs
    to ask the kernel; `me` the name under which this actor owns things, 0 for one that owns nothing.

    The file is sparse: to touch a hole of it is SIGBUS when the file system is full, and no word of the segment can be
    trusted to say where holes are. So each actor remembers by itself up to where the file is real, backed by memory: the
    pages up to number `real_pages`, the spans before number `real_spans`. Before it touches one behind them, whose number it
    has read somewhere, it has the memory up to there backed itself, which changes nothing where others have.
    """

    def __init__(self, max_vcores, max_queues, max_types, max_slots, page_slots, nr_pages, nr_spans):
        self.max_vcores = max_vcores
        self.max_queues = max_queues
        self.max_types = max_types
        self.max_slots = max_slots
        self.page_slots = page_slots
        self.nr_pages = nr_pages
        self.nr_spans = nr_spans
        self.nr_mboxes = 2 * max_vcores + max_queues + 1
        self.page_size = PAGE_HEADER + page_slots * SLOT_SIZE
        at = HEADER_SIZE
        self.slots = at
        at = at + max_slots * SLOT_STRIDE
        self.procinfo = at
        at = at + PROCINFO_SIZE
        self.vcoremap = at
        at = (at + max_vcores * 8 + 63) // 64 * 64
        self.vcpds = at
        at = at + max_vcores * VCPD_STRIDE
        self.queues = at
        at = at + max_queues * EVQ_STRIDE
        self.mboxes = at
        at = at + self.nr_mboxes * MBOX_STRIDE
        self.types = at
        at = at + max_types * NAME_BYTES
        self.sources = at
        at = at + NR_SOURCES * SOURCE_STRIDE
        self.bitmap = at
        at = at + (nr_pages + 63) // 64 * 8
        at = (at + 63) // 64 * 64
        self.spans = at
        at = at + nr_spans * SPAN_STRIDE
        self.tables_end = (at + 4095) // 4096 * 4096
        self.pages = self.tables_end
        self.arena = (self.pages + nr_pages * self.page_size + 4095) // 4096 * 4096
        self.size = self.arena + nr_spans * SPAN_SIZE
        self.me = 0
        self.my_slot = 0
        self.vcoreid = NO_VCORE
        self.real_pages = 0
        self.real_spans = 0
        self.hint_page = 0
        self.hint_free = 0
        self.why = OK
        self.indir = Msg()
        if not cython.compiled:
            self.mem = None
            self.world = None
            self.hint_span = [0] * SMALL_CLASSES
            self.hint_block = [0] * SMALL_CLASSES
            self.look_span = [0] * SMALL_CLASSES

    def set_name(self, slot, generation):
        """Takes the name of an attach slot; `generation` rises each time the slot is taken."""
        self.my_slot = slot
        self.me = name_of(slot, generation)

    def make_pages_real(self, end):
        """Makes the pages up to number `end` real, and the rest of its chunk. False if there are not so many, or the file
        system has no room: then nobody may touch page `end`."""
        if end > self.nr_pages:
            return False
        end = (end + PAGES_CHUNK - 1) // PAGES_CHUNK * PAGES_CHUNK
        if end > self.nr_pages:
            end = self.nr_pages
        if end > self.real_pages:
            if not self.back(self.pages + self.real_pages * self.page_size, (end - self.real_pages) * self.page_size):
                return False
            self.real_pages = end
        return True

    def make_spans_real(self, end):
        """Makes the spans before number `end` real. False as for pages."""
        if end > self.nr_spans:
            return False
        if end > self.real_spans:
            if not self.back(self.arena + self.real_spans * SPAN_SIZE, (end - self.real_spans) * SPAN_SIZE):
                return False
            self.real_spans = end
        return True

    def back(self, at, size):
        """Has a piece of the file backed with memory; what others have backed, and use, stays as it is."""
        if grow(self.world, at, size) != 0:
            return False
        if self.me != 0:  # nobody's own view of a segment has no counters
            count(self, AS_SYSCALLS, 1)
        return True


def vcoreid_is_safe(s: Seg, vcoreid: int) -> bool:
    """The seed's check: the id, not the address computed from it, since that could wrap."""
    return vcoreid < s.max_vcores


def count(s: Seg, counter: int, by: int) -> None:
    """Adds to a counter of this actor's own attach slot: one writer, so a load and a store."""
    at = slot_record_at(s, s.my_slot) + counter
    st64(s.mem, at, ld64(s.mem, at) + by)
