"""The sources of a definition: made when the process starts, found again by its next start, and by its workers."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ..flags import EventType
from ..kern import const
from . import fingerprint, linux, records
from .definition import Definition, SourceSpec
from .handle import Handle

if TYPE_CHECKING:
    from .sources import Sources


def make_all(sources: Sources, definition: Definition, running: bool) -> None:
    """Makes what a definition wants, in a process that its supervisor starts, or takes over with workers that run.

    An alarm that is there already, from a former start, goes on: periods that were missed meanwhile count. One that is
    over is not made again while workers run. A tap has another descriptor at each start, and so is another one."""
    segment, handle = sources.segment, sources.handle
    handle.refresh()
    found = {source.key: source for source in records.all_of(segment) if source.key}
    for index, spec in enumerate(definition.sources):
        key = fingerprint.of_source(definition, index)
        before = found.pop(key, None)
        if spec.kind == const.KIND_ALARM and before is not None and (before.state != const.SOURCE_SPENT or running):
            continue
        ident = _make(handle, spec, key, before.id if before else 0)
        if before is not None:
            records.drop(segment, sources.seg, before.id)
        if spec.kind == const.KIND_TAP:
            sources.tap(ident, os.dup(spec.fd))
    for number in definition.signals:
        key = const.SIGNAL_KEY | number
        if found.pop(key, None) is None:
            records.make(segment, sources.seg, const.KIND_SIGNAL, type=const.EV_POSIX_SIGNAL, value=number, key=key)
    for source in found.values():
        records.drop(segment, sources.seg, source.id)


def _make(handle: Handle, spec: SourceSpec, key: int, replaces: int) -> int:
    clock = linux.CLOCK_REALTIME if spec.flags & const.ALARM_WALL else linux.CLOCK_BOOTTIME
    base = spec.base + (time.clock_gettime_ns(clock) if spec.relative else 0)
    return records.make(
        handle.segment,
        handle.thread().seg,
        spec.kind,
        type=int(spec.type) if isinstance(spec.type, EventType) else handle.resolve(spec.type),
        queue=0 if spec.queue is None else handle.queue_number(spec.queue) + 1,
        flags=spec.flags,
        value=spec.value,
        base=base,
        every=spec.every,
        key=key,
        replaces=replaces,
    )


def hold_taps(handle: Handle, definition: Definition) -> None:
    """A worker keeps copies of the definition's taps: they are to survive the supervisor."""
    specs = {
        fingerprint.of_source(definition, index): spec
        for index, spec in enumerate(definition.sources)
        if spec.kind == const.KIND_TAP
    }
    if not specs:
        return
    for source in records.all_of(handle.segment):
        if source.kind == const.KIND_TAP and source.key in specs:
            if definition.start_method == "fork":
                handle.passing.keep(source.id, os.dup(specs[source.key].fd))
            else:
                handle.passing.say({"get": source.id})  # what it has imported anew is another one
