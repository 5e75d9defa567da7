"""Reading one segment: counters and words out of its tables, events out of its pages."""

from __future__ import annotations

import dataclasses
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator

from ..errors import SegmentError
from ..flags import EventFlag, EventType
from ..host.records import KINDS, unpack
from ..host.segment import open_segment
from ..host.slots import NAME_LOCKS, SUPERVISOR_SLOT, WATCHER_LOCK, is_locked
from ..kern import const
from ..kern.event import get_vcpd_mbox_priv, get_vcpd_mbox_pub
from ..kern.layout import (
    dead_mbox,
    evq_at,
    map_at,
    mbox_at,
    name_of,
    onward,
    page_at,
    slot_record_at,
    source_at,
    vcpd_at,
)
from .records import (
    ALERT_STATES,
    ON_DEATH,
    ON_FULL,
    P_STATES,
    ROLES,
    RUNTIME_BITS,
    RUNTIME_TYPES,
    SLOT_COUNTERS,
    SLOT_STATES,
    VC_FLAGS,
    VC_STATES,
    VCORE_COUNTERS,
    Mailbox,
    ProcessInfo,
    QueueInfo,
    SlotInfo,
    SourceInfo,
    VCoreInfo,
    called,
    names_of_bits,
    what_of,
)

WALK_TRIES = 4
"""Walks over a mailbox whose pages are turned under the walker, before the last one is taken for good."""


class Reader:
    """A segment as it was at the last `refresh`. Pages of mailboxes are read when they are asked for.

    NoSuchProcess, SegmentError as `connect`; SegmentError later, if the file was cut off. Close it, or use `with`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.segment = open_segment(name)
        self.geometry = self.segment.geometry
        self.seg = self.segment.seg
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def refresh(self) -> None:
        """Reads all small tables again, at once."""
        self.tables = self.read(0, self.seg.spans)
        self._mailboxes: dict[int, Mailbox] = {}
        self._alive: dict[int, bool] = {}

    def close(self) -> None:
        """Closes the files."""
        self.segment.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, at: int, size: int) -> bytes:
        """Bytes of the file. SegmentError if it has become shorter."""
        data = os.pread(self.segment.file, size, at)
        if len(data) < size:
            raise SegmentError(f"segment of {self.name!r} was cut off: {len(data)} of {size} bytes at {at}")
        return data

    def u32(self, at: int) -> int:
        """A u32 of the tables."""
        return int(struct.unpack_from("I", self.tables, at)[0])

    def u64(self, at: int) -> int:
        """A u64 of the tables."""
        return int(struct.unpack_from("Q", self.tables, at)[0])

    def info(self, at: int) -> int:
        """A u32 of procinfo."""
        return self.u32(self.seg.procinfo + at)

    def text(self, at: int) -> str:
        """A name; what cannot be printed is escaped, so that nobody's name moves the reader's cursor."""
        raw = self.tables[at : at + const.NAME_BYTES].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in raw)

    def alive(self, slot: int) -> bool:
        """Whether somebody living holds this attach slot."""
        if slot not in self._alive:
            word = self.u64(slot_record_at(self.seg, slot) + const.AS_WORD) if slot < self.geometry.max_slots else 0
            name = name_of(slot, word & const.SLOT_GEN_MASK)
            self._alive[slot] = bool(word >> 32) and is_locked(self.segment.probe, NAME_LOCKS + name)
        return self._alive[slot]

    def slot_pid(self, slot: int) -> int:
        """The process that uses, or last used, an attach slot."""
        return self.u32(slot_record_at(self.seg, slot) + const.AS_PID)

    def name_alive(self, name: int) -> bool:
        """Whether the owner of a name (attach slot, generation) lives."""
        slot = name & const.SLOT_MASK
        if slot >= self.geometry.max_slots or not self.alive(slot):
            return False
        return self.u64(slot_record_at(self.seg, slot) + const.AS_WORD) & const.SLOT_GEN_MASK == name >> 12

    def name_pid(self, name: int) -> int | None:
        """The process of a name's owner, dead ones included; None if its attach slot has another owner by now."""
        slot = name & const.SLOT_MASK
        if not name or slot >= self.geometry.max_slots:
            return None
        of_it = self.u64(slot_record_at(self.seg, slot) + const.AS_WORD) & const.SLOT_GEN_MASK == name >> 12
        return (self.slot_pid(slot) or None) if of_it else None

    def owner(self, name: int) -> str | None:
        """A name as `slot/generation`, with its process or "dead"; None for nobody."""
        if not name:
            return None
        slot = name & const.SLOT_MASK
        who = f"pid {self.slot_pid(slot)}" if self.name_alive(name) else "dead"
        return f"{slot}/{name >> 12} {who}"

    def type_name(self, number: int) -> str:
        """The name of an event type."""
        if number < const.TYPE_PROGRAM:
            return EventType(number).name if number in set(EventType) else f"?{number}"
        known = number < min(self.geometry.max_types, const.TYPE_PROGRAM + self.info(const.PI_NR_TYPES))
        return self.text(self.seg.types + number * const.NAME_BYTES) if known else f"?{number}"

    def mailbox(self, number: int) -> Mailbox:
        """What lies in a mailbox. A walk that a turned page cuts short is tried again; its end is always bounded."""
        if number not in self._mailboxes:
            for _ in range(WALK_TRIES):
                found, whole = self._walk(number)
                if whole:
                    break
            self._mailboxes[number] = found
        return self._mailboxes[number]

    def _walk(self, number: int) -> tuple[Mailbox, bool]:
        """A mailbox, and whether its pages stayed in place during the walk."""
        record = self.read(mbox_at(self.seg, number), const.MBOX_STRIDE)
        words = struct.unpack_from(f"{const.MB_BITMAP_WORDS}Q", record, const.MB_BITMAP)
        ignored = self._ignored(number)
        bits = tuple(n for n in range(const.MB_BITMAP_WORDS * 64) if words[n // 64] >> n % 64 & 1 and n not in ignored)
        here = struct.unpack_from("Q", record, const.MB_HEAD)[0]
        first = here >> 20 & 0xFFF
        box = Mailbox(number, Counter(), 0, Counter(), bits, (), None)
        seen: dict[int, int] = {}
        while page := here & const.PAGE_MASK:
            if page > self.geometry.nr_pages or first > self.geometry.page_slots:
                return dataclasses.replace(box, odd=f"leads to page {page} slot {first}", pages=tuple(seen)), True
            if seen.get(page, here >> 32) != here >> 32:
                return dataclasses.replace(box, pages=tuple(seen)), False  # given back, and appended again
            if page in seen:
                return dataclasses.replace(box, odd=f"its pages lead back to page {page}", pages=tuple(seen)), True
            seen[page] = here >> 32
            after = self._count(box, page, here >> 32, first)
            if after is None:
                return dataclasses.replace(box, pages=tuple(seen)), False
            box, here = after
            first = 0
        return dataclasses.replace(box, pages=tuple(seen)), True

    def _count(self, box: Mailbox, page: int, gen: int, first: int) -> tuple[Mailbox, int] | None:
        """Adds a page's slots to a mailbox, and says where the next page is; None if the page has been turned."""
        data = memoryview(self.read(page_at(self.seg, page), self.seg.page_size)).cast("Q")
        if data[const.PG_WORD // 8] >> 8 & const.GEN_MASK != gen:
            return None
        stride, start = const.SLOT_SIZE // 8, (const.PAGE_HEADER + first * const.SLOT_SIZE) // 8
        states, by_queue, runtime = box.slots.copy(), box.by_queue.copy(), box.runtime
        for i, word in enumerate(data[start::stride].tolist()):
            if word & 15 == const.DONE or word >> 8 & const.GEN_MASK != gen:
                continue
            state = called(SLOT_STATES, word & 15)
            states[state] += 1
            if state == "CLAIMED":
                continue
            at = start + i * stride
            kind, queue = data[at + const.SL_TYPE // 8] & 0xFFFF, data[at + const.SL_QUEUE // 8] >> 32 & 0xFFFF
            if (
                box.number < 2 * self.geometry.max_vcores
                and kind in RUNTIME_TYPES
                and (not queue or kind == const.EV_EVENT)
            ):
                runtime += 1
            else:
                by_queue[queue] += 1
        after = onward(data[const.PG_NEXT // 8])
        return dataclasses.replace(box, slots=states, by_queue=by_queue, runtime=runtime), after

    def mailboxes(self) -> Iterator[Mailbox]:
        """The mailboxes that have ever been used."""
        for number in range(self.seg.nr_mboxes):
            at = mbox_at(self.seg, number)
            if self.u64(at + const.MB_HEAD) & const.PAGE_MASK or any(
                self.tables[at + const.MB_BITMAP : at + const.MBOX_STRIDE]
            ):
                yield self.mailbox(number)

    def waiting(self, *, settled: bool = False) -> int:
        """Events sent and not done, bits included, in a hand or not. `settled`: nobody alive is attached, so a claim is
        no event."""
        boxes = [box for box in self.mailboxes() if box.number != dead_mbox(self.seg)]
        in_hand = self._bits_in_hand() - {(box.number, bit) for box in boxes for bit in box.bits}
        return sum(box.waiting - (box.slots["CLAIMED"] if settled else 0) for box in boxes) + len(in_hand)

    def _bits_in_hand(self) -> set[tuple[int, int]]:
        """Mailbox and type of each bit of the program that a host has in hand, or had when it died."""
        words = (self.u64(vcpd_at(self.seg, v) + const.VCPD_BIT) for v in range(self.geometry.max_vcores))
        held = {((word & 0xFFFFFFFF) >> const.BIT_MBOX_SHIFT, word & const.BIT_TYPE_MASK) for word in words}
        boxes = range(1, self.seg.nr_mboxes + 1)
        return {(box - 1, bit) for box, bit in held if box in boxes and bit not in self._ignored(box - 1)}

    def _ignored(self, number: int) -> set[int]:
        """The bits of a mailbox that are no events of the program."""
        return RUNTIME_BITS if number < 2 * self.geometry.max_vcores else {const.EV_NONE}

    @property
    def dead(self) -> int:
        """Dead letters, of all queues and of mail to vcores."""
        return sum(self.mailbox(dead_mbox(self.seg)).by_queue.values())

    def odd(self) -> list[str]:
        """What in the mailboxes cannot be."""
        return [f"mailbox {box.number} {box.odd}" for box in self.mailboxes() if box.odd]

    def vcores(self) -> Iterator[VCoreInfo]:
        """The process's vcores, and those beyond which still have a host or mail."""
        count = self.u64(self.seg.procinfo + const.PI_NUM_VCORES)
        for v in range(self.geometry.max_vcores):
            word = self.u64(map_at(self.seg, v))
            private = self.mailbox(get_vcpd_mbox_priv(self.seg, v)).waiting
            pending = private + self.mailbox(get_vcpd_mbox_pub(self.seg, v)).waiting
            if v >= count and word & 15 == const.VC_NOHOST and not pending:
                continue
            at = vcpd_at(self.seg, v)
            host = self.u64(at + const.VCPD_HOST) if word & 15 != const.VC_NOHOST else 0
            yield VCoreInfo(
                id=v,
                pid=self.name_pid(host),
                state=self.vcore_state(v, word & 15),
                alive=self.name_alive(host),
                pending=pending,
                private=private,
                notif_pending=bool(self.u32(at + const.VCPD_NOTIF_PENDING)),
                flags=names_of_bits(VC_FLAGS, self.u32(at + const.VCPD_FLAGS)),
                **{name: self.u64(at + const.NUMBERS[f"VCPD_{name.upper()}"]) for name in VCORE_COUNTERS},
            )

    def vcore_state(self, v: int, state: int) -> str:
        """The name of a vcore's state; FAILING if it has no host, since that dies at its start again and again."""
        fails = self.u64(vcpd_at(self.seg, v) + const.VCPD_FAILS)
        if state == const.VC_NOHOST and fails >= const.FAILING and self.alive(SUPERVISOR_SLOT):
            return "FAILING"
        return str(called(VC_STATES, state))

    def queues(self) -> Iterator[QueueInfo]:
        """The event queues."""
        letters = self.mailbox(dead_mbox(self.seg)).by_queue
        for q in range(min(self.info(const.PI_NR_QUEUES), self.geometry.max_queues)):
            at = evq_at(self.seg, q)
            own, alert = self.u32(at + const.EVQ_MBOX), self.u64(at + const.EVQ_ALERT)
            depth = limit = 0
            if 0 < own <= self.seg.nr_mboxes:
                depth = self.mailbox(own - 1).waiting
                limit = self.u64(mbox_at(self.seg, own - 1) + const.MB_LIMIT)
            elif not own:
                depth = sum(self.mailbox(box).by_queue[q + 1] for box in range(2 * self.geometry.max_vcores))
            flags = self.u32(at + const.EVQ_FLAGS)
            yield QueueInfo(
                name=self.text(at + const.EVQ_NAME),
                depth=depth,
                dead=letters[q + 1],
                flags=names_of_bits({int(flag): flag.name or "" for flag in EventFlag}, flags),
                alert=" ".join(filter(None, (called(ALERT_STATES, alert & 15), self.owner(alert >> 32)))),
                mailbox=own - 1 if own else None,
                limit=limit or None,
                on_full=called(ON_FULL, self.u32(at + const.EVQ_ON_FULL)),
                on_death=called(ON_DEATH, self.u32(at + const.EVQ_ON_DEATH)),
                max_redeliveries=self.u32(at + const.EVQ_MAX_REDELIVERIES),
            )

    def slots(self) -> Iterator[SlotInfo]:
        """The attach slots in use, and those whose last user left its counters."""
        for slot in range(self.geometry.max_slots):
            at = slot_record_at(self.seg, slot)
            if not self.u64(at + const.AS_WORD):
                continue
            yield SlotInfo(
                slot=slot,
                pid=self.slot_pid(slot),
                tid=self.u32(at + const.AS_TID),
                role=called(ROLES, self.u64(at + const.AS_ROLE)),
                alive=self.alive(slot),
                since_ns=self.u64(at + const.AS_SINCE),
                **{name: self.u64(at + const.NUMBERS[f"AS_{name.upper()}"]) for name in SLOT_COUNTERS},
            )

    def sources(self) -> Iterator[SourceInfo]:
        """Alarms, taps, watches, calls and signals; those that are over are left out."""
        for index in range(const.NR_SOURCES):
            source = unpack(self.tables, index, source_at(self.seg, index))
            if source is None or source.state == const.SOURCE_SPENT:
                continue
            wall = source.flags & const.ALARM_WALL
            now = time.clock_gettime_ns(time.CLOCK_REALTIME if wall else time.CLOCK_BOOTTIME)
            alarm = source.kind == const.KIND_ALARM
            at = evq_at(self.seg, source.queue - 1) + const.EVQ_NAME
            yield SourceInfo(
                id=source.id,
                kind=called(KINDS, source.kind),
                type=self.type_name(source.type),
                queue=self.text(at) if 0 < source.queue <= self.geometry.max_queues else None,
                what=what_of(source),
                pid=source.pid,
                events=source.count,
                value=source.value,
                due_in=(source.due - now) / 1e9 if alarm else None,
                every=source.every / 1e9 or None if alarm else None,
            )

    def watcher(self) -> int | None:
        """The worker that watches the others, while there is no supervisor."""
        if self.alive(SUPERVISOR_SLOT) or not is_locked(self.segment.probe, WATCHER_LOCK):
            return None
        return self.info(const.PI_WATCHER_PID) or None

    def state(self, vcores: tuple[VCoreInfo, ...]) -> str:
        """The process's state. One that was slow to say RUNNING, after it had woken a vcore that has slept again since, says
        it for long; nobody relies on that word, and the vcores' own say better whether one runs."""
        state = str(called(P_STATES, self.u64(self.seg.procinfo + const.PI_STATE) & 0xFF))
        runs = any(vcore.state in ("STARTING", "STARTED", "ONLINE", "AWAY") for vcore in vcores)
        return state if runs or not state.startswith("RUNNING") else "WAITING"

    def process(self) -> ProcessInfo:
        """All of it."""
        pid = self.info(const.PI_SUPERVISOR_PID)
        vcores = tuple(self.vcores())
        return ProcessInfo(
            name=self.name,
            state=self.state(vcores),
            pid=pid if self.alive(SUPERVISOR_SLOT) else None,
            attended=self.alive(SUPERVISOR_SLOT),
            waiting=self.waiting(),
            dead=self.dead,
            memory_bytes=os.fstat(self.segment.file).st_blocks * 512,
            vcores=vcores,
            queues=tuple(self.queues()),
            slots=tuple(self.slots()),
            error="; ".join(self.odd()) or None,
            watcher=self.watcher(),
            sources=tuple(self.sources()),
        )
