"""What may be asked of a source: arguments looked at, and turned into the numbers of its record."""

from __future__ import annotations

import math
import operator
from typing import Any

from ..flags import EventType
from ..host import tables
from ..host.handle import Handle
from ..kern import const
from ..queue import Queue

SECONDS_MAX = 3.2e9
"""About a century."""


def seconds(name: str, value: Any, least: float) -> int:
    """A time in nanoseconds. TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}={value!r} must be a number of seconds, not {type(value).__name__}")
    if math.isnan(value) or not least <= value <= SECONDS_MAX:
        raise ValueError(f"{name}={value!r} is outside {least:g}..{SECONDS_MAX:g} seconds")
    return int(value * 1_000_000_000) if isinstance(value, float) else value * 1_000_000_000


def value_of(value: Any) -> int:
    """The program's own number, which the event carries as arg4."""
    number = operator.index(value)
    if not 0 <= number < 1 << 64:
        raise OverflowError(f"value={value!r} does not fit 64 bits")
    return number


def check_type(kind: Any) -> None:
    """TypeError, ValueError for what cannot be an event type."""
    if not isinstance(kind, EventType):
        tables.check_type_name(kind)


def type_number(handle: Handle, kind: str | EventType) -> int:
    """An event type's number; NoSuchType if nobody has registered it, and we may not."""
    return int(kind) if isinstance(kind, EventType) else handle.types.get(kind) or handle.resolve(kind)


def queue_name(queue: Queue | str | None) -> str | None:
    """A queue's name. TypeError for what is none."""
    name = queue.name if isinstance(queue, Queue) else queue
    if name is not None and not isinstance(name, str):
        raise TypeError(f"queue={queue!r} must be a Queue or its name")
    return name


def queue_number(handle: Handle, queue: Queue | str | None, kind: str | EventType, what: str) -> int:
    """A queue's number + 1; 0: the one that is registered for this kernel event. NoSuchQueue, ValueError if there is
    none."""
    name = queue_name(queue)
    if name is not None:
        return handle.queue_number(name) + 1
    info = handle.segment.seg.procinfo
    if isinstance(kind, EventType) and handle.segment.u32(info + const.PI_KERNEL_EVTS + 4 * int(kind)):
        return 0
    raise ValueError(
        f"{what} without queue=: name the queue that gets its events"
        + (
            f", or register one before the start: proc.kernel_queue({kind!s}, ...)"
            if isinstance(kind, EventType)
            else ""
        )
    )
