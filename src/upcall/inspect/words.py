"""`upcall dump`: the protocol's own words, decoded. For whoever wants to know why a process stands still."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import asdict
from typing import Any

from ..flags import EventType
from ..kern import const
from ..kern.layout import dead_mbox, evq_at, map_at, mbox_at, onward, page_at, span_at, vcpd_at
from .reader import Reader
from .records import P_STATES, PAGE_STATES, SPAN_STATES, STOPS, VC_STATES, called

Words = dict[str, Any]
RECORDS_MAX = 1000
"""Pages and spans listed one by one, at most; all are counted."""


def dump(name: str) -> Words:
    """What a process's segment says, part by part: header, procinfo, vcores, queues, mailboxes, pages, slots, arena.
    NoSuchProcess; SegmentError if it cannot be read at all."""
    with Reader(name) as reader:
        return {
            "header": _header(reader),
            "procinfo": _procinfo(reader),
            "types": _types(reader),
            "vcores": [_vcore(reader, asdict(vcore)) for vcore in reader.vcores()],
            "queues": [_queue(reader, number, asdict(queue)) for number, queue in enumerate(reader.queues())],
            "mailboxes": [_mailbox(reader, box.number) for box in reader.mailboxes()],
            "pages": _pages(reader),
            "slots": [asdict(slot) for slot in reader.slots()],
            "arena": _arena(reader),
        }


def place(where: int) -> str | None:
    """A place in a mailbox as `page 3 slot 17 generation 2`; None for nowhere."""
    if not where & const.PAGE_MASK:
        return None
    return f"page {where & const.PAGE_MASK} slot {where >> 20 & 0xFFF} generation {where >> 32}"


def _header(reader: Reader) -> Words:
    return {
        "path": str(reader.segment.path / "segment"),
        "abi": reader.u32(const.HDR_ABI),
        "file_size": reader.u64(const.HDR_FILE_SIZE),
        "creation": f"{reader.u64(const.HDR_CREATION):016x}",
        "name": reader.text(const.HDR_NAME),
        **asdict(reader.geometry),
    }


def _procinfo(reader: Reader) -> Words:
    at = reader.seg.procinfo
    state, lock = reader.u64(at + const.PI_STATE), reader.u64(at + const.PI_LOCK)
    kernel = {
        kind.name: reader.info(const.PI_KERNEL_EVTS + kind * 4) - 1
        for kind in EventType
        if reader.info(const.PI_KERNEL_EVTS + kind * 4)
    }
    return {
        "state": called(P_STATES, state & 0xFF),
        "epoch": state >> 8,
        "num_vcores": reader.u64(at + const.PI_NUM_VCORES),
        "cores": reader.u64(at + const.PI_CORES),
        "stop": called(STOPS, reader.info(const.PI_STOP)),
        "spin_ns": reader.u64(at + const.PI_SPIN_NS),
        "preempt_ns": reader.u64(at + const.PI_PREEMPT_NS),
        "proc_lock": reader.owner(lock & 0xFFFFFFFF),
        "lock_epoch": lock >> 32,
        "drainers": reader.info(const.PI_DRAINERS),
        "pages_real": reader.u64(at + const.PI_PAGES_REAL),
        "spans_real": reader.u64(at + const.PI_SPANS_REAL),
        "pool_waiters": reader.info(const.PI_POOL_WAITERS),
        "supervisor": reader.owner(reader.u64(at + const.PI_SUPERVISOR) & 0xFFFFFFFF),
        "supervisor_pid": reader.info(const.PI_SUPERVISOR_PID),
        "kernel_events": kernel,
    }


def _types(reader: Reader) -> Words:
    count = min(reader.info(const.PI_NR_TYPES), reader.geometry.max_types - const.TYPE_PROGRAM)
    return {str(number): reader.type_name(number) for number in range(const.TYPE_PROGRAM, const.TYPE_PROGRAM + count)}


def _vcore(reader: Reader, shown: Words) -> Words:
    word = reader.u64(map_at(reader.seg, shown["id"]))
    at = vcpd_at(reader.seg, shown["id"])
    return {
        "id": shown["id"],
        "state": called(VC_STATES, word & 15),
        "sequence": word >> 4 & const.VC_SEQ_MASK,
        "by": reader.owner(word >> 32),
        "host": reader.owner(reader.u64(at + const.VCPD_HOST) & 0xFFFFFFFF),
        "flags": shown["flags"],
        "notif_pending": reader.u32(at + const.VCPD_NOTIF_PENDING),
        "notif_disabled": reader.u32(at + const.VCPD_NOTIF_DISABLED),
        **{name: value for name, value in shown.items() if name not in ("id", "state", "flags", "notif_pending")},
    }


def _queue(reader: Reader, number: int, shown: Words) -> Words:
    at = evq_at(reader.seg, number)
    alert = reader.u64(at + const.EVQ_ALERT)
    vcore = reader.u32(at + const.EVQ_VCORE)
    return {"number": number, **shown, "vcore": vcore, "alert_word": f"{alert:#x}"}


def _whose(reader: Reader, number: int) -> str:
    vcores = 2 * reader.geometry.max_vcores
    if number < vcores:
        return f"vcore {number // 2} {'private' if number % 2 else 'public'}"
    return "dead letters" if number == dead_mbox(reader.seg) else f"queue {number - vcores}"


def _mailbox(reader: Reader, number: int) -> Words:
    box, at = reader.mailbox(number), mbox_at(reader.seg, number)
    return {
        "number": number,
        "of": _whose(reader, number),
        "head": place(reader.u64(at + const.MB_HEAD)),
        "tail": place(reader.u64(at + const.MB_TAIL)),
        "limit": reader.u64(at + const.MB_LIMIT) or None,
        "room_waiters": reader.u32(at + const.MB_ROOM_WAITERS),
        "rescan": reader.u64(at + const.MB_RESCAN),
        "unlinked": reader.u64(at + const.MB_UNLINKED),
        "check_bits": reader.u32(at + const.MB_CHECK_BITS),
        "bits": [reader.type_name(bit) for bit in box.bits],
        "slots": dict(box.slots),
        "between_vcores": box.runtime,
        "pages": list(box.pages[:RECORDS_MAX]),
        "odd": box.odd,
    }


def _pages(reader: Reader) -> Words:
    """The pool: how many pages are in which state, and each that is in use."""
    real = min(reader.u64(reader.seg.procinfo + const.PI_PAGES_REAL), reader.geometry.nr_pages)
    states: Counter[str] = Counter()
    used: list[Words] = []
    for page in range(1, real + 1):
        header = struct.unpack("16Q", reader.read(page_at(reader.seg, page), const.PAGE_HEADER))
        word = header[const.PG_WORD // 8]
        state = called(PAGE_STATES, word & 15)
        states[state] += 1
        if state != "FREE" and len(used) < RECORDS_MAX:
            linked = state == "LINKED"
            used.append(
                {
                    "page": page,
                    "state": state,
                    "generation": word >> 8 & const.GEN_MASK,
                    "owner": f"mailbox {word >> 32}" if linked else reader.owner(word >> 32),
                    "mailbox": header[const.PG_MBOX // 8],
                    "sequence": header[const.PG_SEQ // 8],
                    "next": place(onward(header[const.PG_NEXT // 8])),
                    "leaving": bool(header[const.PG_NEXT // 8] & const.LINK_LEAVING),
                }
            )
    return {"total": reader.geometry.nr_pages, "real": real, "states": dict(states), "used": used}


def _arena(reader: Reader) -> Words:
    """The spans: how many are in which state, and each that is in use, with the blocks held in it."""
    real = min(reader.u64(reader.seg.procinfo + const.PI_SPANS_REAL), reader.geometry.nr_spans)
    states: Counter[str] = Counter()
    used: list[Words] = []
    for span in range(real):
        record = struct.unpack(f"{const.SPAN_STRIDE // 8}Q", reader.read(span_at(reader.seg, span), const.SPAN_STRIDE))
        word = record[const.SP_WORD // 8]
        state = called(SPAN_STATES, word & 15)
        states[state] += 1
        if state == "FREE" or len(used) >= RECORDS_MAX:
            continue
        shown: Words = {
            "span": span,
            "state": state,
            "generation": word >> 8 & const.GEN_MASK,
            "owner": reader.owner(word >> 32),
        }
        if state == "SMALL":
            first, size = const.SP_BLOCKS // 8, const.BLOCK_STRIDE // 8
            shown["block_bytes"] = 1 << const.SMALL_SHIFT + (word >> 4 & 15)
            shown["blocks_held"] = sum(block & 15 == const.BLOCK_HELD for block in record[first::size])
        elif state == "LARGE":
            shown["spans"] = record[const.SP_COUNT // 8]
        elif state == "BODY":
            shown["head"] = record[const.SP_HEAD // 8]
        used.append(shown)
    return {"total": reader.geometry.nr_spans, "real": real, "states": dict(states), "used": used}
