"""The other systems: what an event costs with what is to hand already, and what the machine itself allows.

One file per family; each offers `systems()`. `link` is what a family implements, a one-way channel; `sends`, `events`
and `roundtrips` are the rows that follow from it, `job` what they share: a new family is a `Link` and a list of rows.
"""

from __future__ import annotations

from ..sample import System
from . import executors, faster_fifo, iceoryx, machine, posix, signals, stdlib, zeromq


def systems() -> list[System]:
    """Every peer, the machine's limits first; those that are not installed included: ask each one's `available()`."""
    families = (machine, posix, stdlib, signals, zeromq, iceoryx, faster_fifo, executors)
    return [system for family in families for system in family.systems()]
