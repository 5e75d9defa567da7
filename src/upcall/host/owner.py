"""Owning a segment: how a starting process gets its own, takes it over from a former owner, and lets it go at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from ..errors import NameInUse, NoSuchProcess, SegmentError
from ..kern import const
from ..kern.layout import Seg, slot_record_at, vcpd_at
from ..parlib import ending
from ..parlib.recover import announce
from . import fingerprint
from . import segment as files
from .dead import count_letters
from .definition import Program
from .inherited import let_go
from .records import drop_all
from .segment import Geometry, Segment
from .settle import host_name, settle, tell_watcher
from .slots import SUPERVISOR_SLOT
from .worker import bind_tables


def open_for_owner(proc: Program) -> Segment:
    """The segment of a starting process, attended by us: a new one, or an unattended one with what waits in it. Workers
    that live in it carry on: see `living`."""
    name, definition = proc.name, proc.definition
    while True:
        try:
            segment = files.open_segment(name)
        except NoSuchProcess:
            # Attended from its first moment: nobody can clean it up, or start it, between its making and its start.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                geometry = Geometry.for_memory(definition.vcores, definition.memory, len(definition.queues))
                segment = files.create(name, geometry, attended=True)
                return _taken_over(proc, segment)
            continue
        if not attend(segment):
            pid = segment.u32(slot_record_at(segment.seg, SUPERVISOR_SLOT) + const.AS_PID)
            stops = segment.u32(segment.seg.procinfo + const.PI_STOP)
            segment.close()
            if stops:
                raise NameInUse(f"process {name!r} is just being stopped (by pid {pid}): start it when that is done")
            raise NameInUse(f"process {name!r} runs already (pid {pid}): stop it first, or use another name")
        # Somebody may have removed the file between our open and our lock: then it is not the one that others find.
        if files.is_in_place(segment):
            return _taken_over(proc, segment)
        segment.close()


def attend(segment: Segment) -> bool:
    """Takes the supervisor's slot. False if a living one has it."""
    with segment.slots.in_turn(), contextlib.suppress(SegmentError):
        if segment.is_attended():
            let_go(segment, SUPERVISOR_SLOT)
        segment.attend()
    return segment.supervisor is not None


def _taken_over(proc: Program, segment: Segment) -> Segment:
    supervisor = segment.supervisor
    assert supervisor is not None
    try:
        _take_over(proc, segment, supervisor)
    except BaseException:
        if not living(segment, supervisor):
            finish(segment, supervisor)
        segment.close()
        raise
    return segment


def living(segment: Segment, seg: Seg) -> list[int]:
    """Settles the vcores of dead hosts; the vcores that somebody alive hosts."""
    return [v for v in range(segment.geometry.max_vcores) if lives(segment, seg, v)]


def lives(segment: Segment, seg: Seg, vcoreid: int) -> bool:
    """Whether somebody alive hosts a vcore; if not, what was there is settled."""
    if settle(segment, seg, vcoreid) is not None:
        return False
    slot = host_name(segment, vcoreid) & const.SLOT_MASK
    return not let_go(segment, slot) or settle(segment, seg, vcoreid) is None


def _take_over(proc: Program, segment: Segment, supervisor: Seg) -> None:
    """Settles what a former run has left, and writes this run's definition."""
    definition, info = proc.definition, segment.seg.procinfo
    if definition.vcores > segment.geometry.max_vcores:
        raise SegmentError(
            f"vcores={definition.vcores}, but the segment that {proc.name!r} left has room for "
            f"{segment.geometry.max_vcores}: start it with fewer, or remove it with upcall clean --discard"
        )
    files.make_fifos(segment)
    alive = living(segment, supervisor)
    segment.put_u64(info + const.PI_NUM_VCORES, max([definition.vcores, *(v + 1 for v in alive)]))
    segment.put_u64(info + const.PI_CORES, definition.cores)
    segment.put_u64(info + const.PI_SPIN_NS, int(definition.spin_us * 1000))
    segment.put_u64(info + const.PI_PREEMPT_NS, int(definition.preempt_after_ms * 1e6))
    segment.put_u32(info + const.PI_STOP, 0)
    for v in range(segment.geometry.max_vcores):
        segment.put_u64(vcpd_at(segment.seg, v) + const.VCPD_FAILS, 0)
    # While workers live that know other tables, the tables are theirs: what they do not know they would drop.
    if not alive:
        write_tables(proc, segment)
    state = segment.u64(info + const.PI_STATE)
    if not alive or state & 0xFF == const.P_DYING:
        segment.put_u64(info + const.PI_STATE, const.P_CREATED | ((state >> 8) + 1) << 8)
    publish(segment, supervisor)
    if alive:
        announce(supervisor)


def write_tables(proc: Program, segment: Segment) -> None:
    """Writes the definition's types, queues and kernel events."""
    bind_tables(proc, segment)
    segment.put_u64(segment.seg.procinfo + const.PI_TABLES, fingerprint.tables(proc.definition))


def publish(segment: Segment, supervisor: Seg) -> None:
    """Says who attends the process; a worker that watched steps down."""
    segment.put_u32(segment.seg.procinfo + const.PI_SUPERVISOR_PID, os.getpid())
    segment.put_u64(segment.seg.procinfo + const.PI_SUPERVISOR, supervisor.me)
    tell_watcher(segment)


def tell_to_stop(segment: Segment, seg: Seg, vcores: Iterable[int], how: int) -> None:
    """Tells every worker to stop, STOP_DRAIN or STOP_NOW, and wakes these."""
    ending.tell_to_stop(seg, how)
    nudge(seg, vcores)


def nudge(seg: Seg, vcores: Iterable[int]) -> None:
    """Has vcores look, asleep or in user code."""
    for v in vcores:
        ending.nudge(seg, v)


def left_over(segment: Segment, seg: Seg) -> str:
    """What a stop has left, for people."""
    letters = count_letters(segment)
    boxes = ending.something_waits(seg) - bool(letters)
    events = [f"events waiting in {boxes} mailbox(es)"] if boxes else []
    dead = [f"{letters} dead letter(s) (upcall dead {segment.name} shows them)"] if letters else []
    return " and ".join(events + dead)


def finish(segment: Segment, seg: Seg) -> bool:
    """The end of a run: removes the segment if nothing waits in it. True if it did."""
    drop_all(segment, seg)
    if not ending.end_process(seg):
        return False
    files.remove(segment)
    return True
