"""Sources as records of the segment, read and made by Python. What they are, and who may change them: kern/source."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import SegmentError
from ..kern import const
from ..kern import source as table
from ..kern.layout import Seg, source_at
from .segment import Segment
from .settle import tell_watcher

_RECORD = struct.Struct(f"=QIIIIQQQQQQQQ{const.SR_NAME_BYTES}s")
EVERY_MIN_NS = 1_000_000
"""The shortest period of an alarm, whatever the segment says: whoever attends it has other things to do."""
INDEX_MASK = (1 << const.SOURCE_GEN_SHIFT) - 1
KINDS = {
    const.KIND_ALARM: "alarm",
    const.KIND_TAP: "tap",
    const.KIND_WATCH: "watch",
    const.KIND_CALL: "call",
    const.KIND_SIGNAL: "signal",
}


@dataclass(frozen=True)
class Source:
    """One record, as it was when it was read."""

    id: int
    state: int
    kind: int
    type: int
    queue: int
    flags: int
    value: int
    base: int
    every: int
    key: int
    replaces: int
    maker: int
    pid: int
    count: int
    name: str

    @property
    def due(self) -> int:
        """Of an alarm: when it fires next, nanoseconds of its clock."""
        return self.base + self.every * self.count


def unpack(data: bytes | memoryview, index: int, at: int = 0) -> Source | None:
    """The record in these bytes; None if it is free, or being written."""
    word, kind, type_, queue, flags, value, base, every, key, replaces, maker, pid, count, name = _RECORD.unpack_from(
        data, at
    )
    state, gen = word & 15, word >> 8 & const.GEN_MASK
    if state in (const.SOURCE_FREE, const.SOURCE_CLAIMED):
        return None
    text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
    ident = index | gen << const.SOURCE_GEN_SHIFT
    every = every and max(every, EVERY_MIN_NS)
    periods = count & (1 << 40) - 1 if count >> 40 == gen else 0
    return Source(ident, state, kind, type_, queue, flags, value, base, every, key, replaces, maker, pid, periods, text)


def read(segment: Segment, ident: int) -> Source | None:
    """A source by its id; None if it is over."""
    index = ident & INDEX_MASK
    if index >= const.NR_SOURCES:
        return None
    at = source_at(segment.seg, index)
    found = unpack(bytes(segment.memory[at : at + const.SOURCE_STRIDE]), index)
    # Read before its word is read again: the same word means that these were its fields.
    if found is None or found.id != ident or not table.source_state(segment.seg, ident):
        return None
    return found


def all_of(segment: Segment) -> Iterator[Source]:
    """All sources there are."""
    index = 0
    while ident := table.next_source(segment.seg, index):
        index = (ident & INDEX_MASK) + 1
        found = read(segment, ident)
        if found is not None:
            yield found


def make(
    segment: Segment,
    seg: Seg,
    kind: int,
    *,
    type: int,
    queue: int = 0,
    flags: int = 0,
    value: int = 0,
    base: int = 0,
    every: int = 0,
    pid: int | None = None,
    key: int = 0,
    replaces: int = 0,
    name: str = "",
    tell: bool = True,
) -> int:
    """Makes a source, under the name of `seg`, and tells the watcher (unless `tell` is False); its id. SegmentError if the
    table is full."""
    index = table.claim_source(seg)
    if index == const.NR_SOURCES:
        raise SegmentError(
            f"process {segment.name!r} has {const.NR_SOURCES} alarms, taps, watches and calls, and no more at once: "
            f"cancel or close some (upcall ps {segment.name} lists them)"
        )
    table.write_source(seg, index, kind, type, queue, flags, value, base, every, os.getpid() if pid is None else pid)
    table.set_source_key(seg, index, key, replaces)
    at = source_at(seg, index) + const.SR_NAME
    text = name.encode()[: const.SR_NAME_BYTES - 1]
    segment.memory[at : at + const.SR_NAME_BYTES] = text + bytes(const.SR_NAME_BYTES - len(text))
    ident: int = table.set_source(seg, index)
    if tell:
        tell_watcher(segment)
    return ident


def drop(segment: Segment, seg: Seg, ident: int) -> bool:
    """Ends a source. False if it was over."""
    done: bool = table.drop_source(seg, ident)
    if done:
        tell_watcher(segment)
    return done


def drop_all(segment: Segment, seg: Seg) -> None:
    """A process stops: what it wanted to be told of is over. Calls stay: who dies in one is told at the next start."""
    for source in all_of(segment):
        if source.kind != const.KIND_CALL:
            table.drop_source(seg, source.id)
