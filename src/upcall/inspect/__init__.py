"""Looking at segments from outside, without their processes' help: even when those are stopped, stuck or dead.

Nothing here attaches, and but for `clean` nothing writes. The file is read, not mapped: a mapped look at a hole would
make it real, and a file that shrinks meanwhile would kill the looker. What is read is believed as little as anywhere
else: every index is checked, every walk is bounded by the geometry, and what cannot be is shown as such (G10). While it
is read a process goes on, so its numbers belong to about the same moment, not to the same one.

`snapshot` reads what `upcall ps` shows, `dump` the protocol's own words, `clean` removes what nobody attends.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import NoSuchProcess, SegmentError
from ..host.segment import names
from .clean import Cleaned, clean
from .reader import Reader
from .records import ProcessInfo, QueueInfo, SlotInfo, SourceInfo, VCoreInfo
from .words import dump

__all__ = [
    "Cleaned",
    "ProcessInfo",
    "QueueInfo",
    "Reader",
    "SlotInfo",
    "SourceInfo",
    "VCoreInfo",
    "clean",
    "dump",
    "snapshot",
    "snapshots",
]


def snapshot(name: str) -> ProcessInfo:
    """One process as it is now. NoSuchProcess; SegmentError if its segment cannot be read at all; `error` in the result
    says what in it is damaged."""
    with Reader(name) as reader:
        return reader.process()


def snapshots() -> Iterator[ProcessInfo]:
    """All processes of this user, by name; one whose segment cannot be read is there with `error` saying why."""
    for name in sorted(names()):
        try:
            yield snapshot(name)
        except NoSuchProcess:
            continue  # it has ended since the folder was read
        except (SegmentError, ValueError) as error:
            yield ProcessInfo.unreadable(name, str(error))
