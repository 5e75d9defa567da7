"""The tables of names in a segment: event types and event queues.

Both are written by the process's owner only, under `proc_lock`, entry first, then the count, and never changed afterwards;
readers read the count, then the entries before it. What a reader finds is checked like everything else in the segment.
"""

from __future__ import annotations

from ..errors import SegmentError
from ..flags import EventFlag, EventType
from ..kern import const
from ..kern.event import queue_mbox
from ..kern.layout import Seg, evq_at, mbox_at
from ..kern.proc import proc_lock, proc_unlock
from ..parlib.mbox import has_bits, waiting_in
from .segment import Segment

KERNEL_TYPES: dict[object, int] = {kind: int(kind) for kind in EventType}


def types(segment: Segment) -> dict[int, str]:
    """The program's event types by number."""
    count = min(segment.u32(segment.seg.procinfo + const.PI_NR_TYPES), segment.geometry.max_types - const.TYPE_PROGRAM)
    first = const.TYPE_PROGRAM
    return {i: segment.text(segment.seg.types + i * const.NAME_BYTES) for i in range(first, first + count)}


def queues(segment: Segment) -> dict[int, str]:
    """The event queues by number."""
    count = min(segment.u32(segment.seg.procinfo + const.PI_NR_QUEUES), segment.geometry.max_queues)
    return {i: segment.text(evq_at(segment.seg, i) + const.EVQ_NAME) for i in range(count)}


def _check_text(text: str, what: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{what} {text!r} must be a str, not {type(text).__name__}")
    size = len(text.encode())
    if not text or size >= const.NAME_BYTES or "\0" in text or not text.isprintable():
        raise ValueError(f"{what} {text!r}: use 1 to {const.NAME_BYTES - 1} bytes of printable text")


def check_type_name(name: str) -> None:
    """ValueError if an event type cannot have this name."""
    _check_text(name, "event type")


def check_queue_name(name: str) -> None:
    """ValueError if a queue cannot have this name."""
    _check_text(name, "queue name")


def _locked(segment: Segment, seg: Seg) -> None:
    if not proc_lock(seg):
        raise SegmentError(f"the tables of {segment.name!r} are being changed by another process: try again")


def register_type(segment: Segment, seg: Seg, name: str, known: dict[str, int] | None = None) -> int:
    """The number of a program type, registered now if it is new. SegmentError if the table is full. `known`: the numbers of
    those that there are, kept by whoever registers many, so that they are not read each time."""
    check_type_name(name)
    _locked(segment, seg)
    try:
        known = {} if known is None else known
        if len(known) != segment.u32(segment.seg.procinfo + const.PI_NR_TYPES):
            known |= {text: number for number, text in types(segment).items()}
        if name in known:
            return known[name]
        number = const.TYPE_PROGRAM + len(known)
        if number >= segment.geometry.max_types:
            raise SegmentError(
                f"no room for event type {name!r}: {segment.name!r} has {len(known)}, as many as a process can have"
            )
        segment.put_text(segment.seg.types + number * const.NAME_BYTES, name)
        # The name before the count (a release): pairs with `types`, which reads the count first (an acquire).
        segment.put_u32(segment.seg.procinfo + const.PI_NR_TYPES, len(known) + 1)
        known[name] = number
        return number
    finally:
        proc_unlock(seg)


def register_queue(
    segment: Segment,
    seg: Seg,
    name: str,
    *,
    flags: int,
    vcore: int,
    mailbox: int,
    limit: int,
    on_full: int,
    on_death: int = const.ON_DEATH_REDELIVER,
    max_redeliveries: int = const.REDELIVERIES_USUAL,
    known: dict[str, int] | None = None,
) -> int:
    """The number of an event queue, registered now if it is new; a known one keeps its mailbox and takes the rest.
    `mailbox`: -1 its own, -2 none (a vcore's), else the number of the queue whose mailbox it shares, with its limit.
    SegmentError if it had another one in which events wait. `known` as for `register_type`."""
    check_queue_name(name)
    _locked(segment, seg)
    try:
        known = {} if known is None else known
        if len(known) != segment.u32(segment.seg.procinfo + const.PI_NR_QUEUES):
            known |= {text: number for number, text in queues(segment).items()}
        number = known.get(name, len(known))
        if number >= segment.geometry.max_queues:
            raise SegmentError(
                f"no room for queue {name!r}: {segment.name!r} has {len(known)}, as many as its segment was made for: "
                "upcall clean --discard removes it, with what waits in it; a new one is made for the definition"
            )
        at = evq_at(segment.seg, number)
        if mailbox == -2:
            box = 0
        else:
            box = queue_mbox(segment.seg, number if mailbox == -1 else mailbox) + 1
        before = segment.u32(at + const.EVQ_MBOX) if name in known else 0
        if (
            0 < before <= seg.nr_mboxes
            and before != box
            and (waiting_in(seg, before - 1, 0) or has_bits(seg, before - 1))
        ):
            raise SegmentError(
                f"queue {name!r} of {segment.name!r} has another mailbox now, and events wait in its former one, where "
                "nobody would look: let the former definition handle them first"
            )
        if mailbox == -1:
            segment.put_u64(mbox_at(segment.seg, box - 1) + const.MB_LIMIT, limit)
        segment.put_u32(at + const.EVQ_FLAGS, flags)
        segment.put_u32(at + const.EVQ_VCORE, vcore)
        segment.put_u32(at + const.EVQ_MBOX, box)
        segment.put_u32(at + const.EVQ_ON_FULL, on_full)
        segment.put_u32(at + const.EVQ_ON_DEATH, on_death)
        segment.put_u32(at + const.EVQ_MAX_REDELIVERIES, max_redeliveries)
        if name not in known:
            segment.put_text(at + const.EVQ_NAME, name)
            segment.put_u32(at + const.EVQ_USED, 1)
            # The entry before the count (a release): pairs with `queues`, which reads the count first (an acquire). A
            # sender has the number from there, so the protocol's own looks at the entry need no order.
            segment.put_u32(segment.seg.procinfo + const.PI_NR_QUEUES, number + 1)
            known[name] = number
        return number
    finally:
        proc_unlock(seg)


def register_kernel_queue(segment: Segment, kind: EventType, queue: int) -> None:
    """Registers a queue for a kernel event; pairs with the read barrier in `send_kernel_event`."""
    segment.put_u32(segment.seg.procinfo + const.PI_KERNEL_EVTS + int(kind) * 4, queue + 1)


def queue_flags(segment: Segment, queue: int) -> EventFlag:
    """A queue's delivery flags."""
    return EventFlag(segment.u32(evq_at(segment.seg, queue) + const.EVQ_FLAGS) & int(sum(EventFlag)))
