"""What lies where in a segment, for people: an offset as `vcore 0.notif_pending` or `page 1.slot 0.arg1`. The names are
those of `kern/const.pxd`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from typing import Any

from ..kern import const


@cache
def _fields(prefix: str) -> list[tuple[int, str]]:
    """The fields of a record, by offset: all numbers whose names begin so, but for sizes."""
    numbers = const.NUMBERS.items()
    return sorted((at, name.removeprefix(prefix).lower()) for name, at in numbers if _is_field(name, prefix))


def _is_field(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and not name.endswith(("STRIDE", "SIZE", "WORDS", "SLOTS", "HEADER", "NAME_BYTES"))


@cache
def namer(geometry: tuple[int, ...], layout: Any) -> Callable[[int], str]:
    """Names for the offsets of a segment of this geometry; `layout` is `kern.layout` of any life."""
    seg = layout.Seg(*geometry)
    records = [(0, "header", "HDR_"), (seg.procinfo, "proc", "PI_")]
    records += [(layout.slot_record_at(seg, i), f"attach {i}", "AS_") for i in range(seg.max_slots)]
    records += [(layout.map_at(seg, v), f"vcoremap {v}", "") for v in range(seg.max_vcores)]
    records += [(layout.vcpd_at(seg, v), f"vcore {v}", "VCPD_") for v in range(seg.max_vcores)]
    records += [(layout.evq_at(seg, q), f"queue {q}", "EVQ_") for q in range(seg.max_queues)]
    records += [(layout.mbox_at(seg, m), _mailbox(seg, m), "MB_") for m in range(seg.nr_mboxes)]
    records += [(seg.types, "types", ""), (seg.bitmap, "pages in use", ""), (seg.arena, "arena", "")]
    records += [(layout.source_at(seg, i), f"source {i}", "SR_") for i in range(const.NR_SOURCES)]
    for page in range(1, seg.nr_pages + 1):
        at = layout.page_at(seg, page)
        records.append((at, f"page {page}", "PG_"))
        for slot in range(seg.page_slots):
            records.append((at + const.PAGE_HEADER + slot * const.SLOT_SIZE, f"page {page}.slot {slot}", "SL_"))
    for span in range(seg.nr_spans):
        at = layout.span_at(seg, span)
        records.append((at, f"span {span}", "SP_"))
        blocks = (const.SPAN_STRIDE - const.SP_BLOCKS) // const.BLOCK_STRIDE
        records += [
            (at + const.SP_BLOCKS + b * const.BLOCK_STRIDE, f"span {span}.block {b}", "BK_") for b in range(blocks)
        ]
    records.sort(key=lambda record: record[0])
    starts = [at for at, _, _ in records]

    def name(offset: int) -> str:
        at, record, prefix = records[bisect_right(starts, offset) - 1]
        inside = offset - at
        if not prefix:
            return f"{record}+{inside}" if inside else record
        fields = _fields(prefix)
        start, field = fields[max(bisect_right(fields, (inside, "~")) - 1, 0)]
        return f"{record}.{field}+{inside - start}" if inside > start else f"{record}.{field}"

    return name


def _mailbox(seg: Any, mbox: int) -> str:
    """A mailbox, by whose it is."""
    if mbox < 2 * seg.max_vcores:
        return f"vcore {mbox // 2}'s {'private' if mbox % 2 else 'public'} mailbox"
    return "dead letters" if mbox == seg.nr_mboxes - 1 else f"queue {mbox - 2 * seg.max_vcores}'s mailbox"
