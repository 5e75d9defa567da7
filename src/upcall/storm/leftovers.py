"""What a storm leaves in the segment: looked at through our own attachment, when everybody else has gone.

First the protocol's own scavenging, as anybody runs it who finds no room; then every page, slot, block, lock and flag is
looked at. What a death leaves until the next one comes by (a page claimed by the dead, say) is scavenged; what is still
there afterwards would be there for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..host.segment import Segment
from ..inspect.records import ALERT_STATES, PAGE_STATES, SLOT_STATES, SPAN_STATES, called
from ..kern import const
from ..kern.arena import scavenge_arena
from ..kern.layout import Seg, evq_at, mbox_at, page_at, span_at, vcpd_at
from ..kern.pages import scavenge_pages
from ..kern.proc import proc_lock, proc_unlock
from ..parlib.mbox import has_bits, recover_mbox


def unkept_flags(segment: Segment) -> Iterator[str]:
    """Flags without their deed, in a process that rests: a queue that says that somebody will look at it, though nobody
    is awake to do so and nobody has been told."""
    seg = segment.seg
    for queue in range(segment.u32(seg.procinfo + const.PI_NR_QUEUES)):
        state = segment.u64(evq_at(seg, queue) + const.EVQ_ALERT) & 15
        if state not in (const.ALERT_NONE, const.ALERT_DOING):
            name = segment.text(evq_at(seg, queue) + const.EVQ_NAME)
            yield f"queue {name!r} says {called(ALERT_STATES, state)} while every vcore sleeps"


def leftovers(segment: Segment, seg: Seg) -> Iterator[str]:
    """What is left over, in words. `seg`: our own name in it, the only living one."""
    for box in range(seg.nr_mboxes):
        recover_mbox(seg, box)
    scavenge_pages(seg)
    scavenge_arena(seg)
    yield from left_slots(segment, seg)
    yield from left_pages(segment, seg)
    yield from left_blocks(segment)
    yield from left_locks(segment, seg)


def left_slots(segment: Segment, seg: Seg) -> Iterator[str]:
    """Messages and claims in mailboxes."""
    for box in range(seg.nr_mboxes):
        head = segment.u64(mbox_at(seg, box) + const.MB_HEAD)
        page, gen = head & const.PAGE_MASK, head >> 32
        if has_bits(seg, box):
            yield f"mailbox {box}: a bit is set"
        if not 0 < page <= seg.nr_pages:
            continue
        if segment.u64(page_at(seg, page) + const.PG_NEXT) & const.PAGE_MASK:
            yield f"mailbox {box}: more than one page"
        states: Counter[str] = Counter()
        for i in range(seg.page_slots):
            word = segment.u64(page_at(seg, page) + const.PAGE_HEADER + i * const.SLOT_SIZE)
            if word >> 8 & const.GEN_MASK == gen and word & 15 != const.DONE:
                states[called(SLOT_STATES, word & 15)] += 1
        if states:
            yield f"mailbox {box}: slots {dict(states)}"


def left_pages(segment: Segment, seg: Seg) -> Iterator[str]:
    """Pages that are neither free nor a mailbox's one page, and free ones that nobody would find."""
    of_mailboxes = {segment.u64(mbox_at(seg, box) + const.MB_HEAD) & const.PAGE_MASK for box in range(seg.nr_mboxes)}
    for page in range(1, segment.u64(seg.procinfo + const.PI_PAGES_REAL) + 1):
        state = segment.u64(page_at(seg, page) + const.PG_WORD) & 15
        bit = segment.u64(seg.bitmap + (page - 1) // 64 * 8) >> (page - 1) % 64 & 1
        if page in of_mailboxes:
            if state != const.PAGE_LINKED:
                yield f"page {page}: a mailbox's, and says {called(PAGE_STATES, state)}"
        elif state != const.PAGE_FREE:
            yield f"page {page}: {called(PAGE_STATES, state)}, and no mailbox's"
        elif not bit:
            yield f"page {page}: free, and not in the bitmap"


def left_blocks(segment: Segment) -> Iterator[str]:
    """Spans of the arena that are not free."""
    seg = segment.seg
    for span in range(seg.nr_spans):
        word = segment.u64(span_at(seg, span) + const.SP_WORD)
        if word & 15 != const.SPAN_FREE:
            blocks = range(span_at(seg, span) + const.SP_BLOCKS, span_at(seg, span + 1), const.BLOCK_STRIDE)
            held = sum(segment.u64(at + const.BK_WORD) & 15 == const.BLOCK_HELD for at in blocks)
            yield f"span {span}: {called(SPAN_STATES, word & 15)}, {held} block(s) held"


def left_locks(segment: Segment, seg: Seg) -> Iterator[str]:
    """The lock, attach slots, a bit in hand, whoever waits for a drain."""
    if proc_lock(seg):
        proc_unlock(seg)
    else:
        yield "proc_lock is held"
    for slot in set(segment.slots.attached(segment.probe)) - {seg.my_slot}:
        yield f"attach slot {slot} is held"
    for vcore in range(seg.max_vcores):
        if segment.u64(vcpd_at(seg, vcore) + const.VCPD_BIT):
            yield f"vcore {vcore}: a bit in hand"
        if segment.u32(vcpd_at(seg, vcore) + const.VCPD_FLAGS) & (const.VC_K_LOCK | const.VC_CAN_RCV_MSG):
            yield f"vcore {vcore}: flags {segment.u32(vcpd_at(seg, vcore) + const.VCPD_FLAGS):#x}"
    if drainers := segment.u32(seg.procinfo + const.PI_DRAINERS):
        yield f"{drainers} wait for a drain"
