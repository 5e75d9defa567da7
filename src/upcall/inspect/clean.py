"""Removing segments that nobody attends.

Whoever removes a segment takes the locks of *all* its attach slots, in turn with those who start it: none of them has a
living owner then, nobody can start it (it needs slot 0), and no sender can attach. Under these locks the process is made
DYING before the last look: a sender that has the file open already, and gets a slot when the locks fall, is told that the
process is gone instead of sending into a file that no name leads to.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import NoSuchProcess, SegmentError
from ..host.inherited import let_go
from ..host.segment import drafts, folder, is_in_place, leads_to, names, remove, remove_files
from ..host.slots import SUPERVISOR_SLOT, TURN_LOCK, is_locked, try_lock
from ..kern import const
from .reader import Reader


@dataclass(frozen=True)
class Cleaned:
    """What became of one segment: whether it was removed, how many events were lost with it (None: it could not be
    read), and why it was removed or stays."""

    name: str
    removed: bool
    lost: int | None
    why: str

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self)


def clean(discard: bool = False, only: Iterable[str] | None = None) -> list[Cleaned]:
    """Removes the unattended segments in which nothing waits; with `discard` those in which something does, too, and
    those that cannot be read. `only` these names; None: all of this user's. Segments that somebody alive is attached to
    stay in any case. NoSuchProcess for a name in `only` that has none."""
    if only is None:
        found = []
        for name in sorted(names()):
            with suppress(NoSuchProcess):
                found.append(_clean(name, discard))
        return found + [Cleaned(name, True, 0, "its start was killed") for name in sorted(_unmade())]
    return [_clean(name, discard) for name in only]


def _unmade() -> Iterator[str]:
    """Removes what starters have left that were killed before their segment was there."""
    for name in names(without=True):
        path = folder() / name
        dead = [draft for draft in drafts(path) if not os.path.exists(f"/proc/{draft.name.split('-')[1]}")]
        for draft in dead:
            draft.unlink(missing_ok=True)
        if dead:
            with suppress(OSError):
                path.rmdir()
            yield name


def _clean(name: str, discard: bool) -> Cleaned:
    try:
        with Reader(name) as reader:
            return _clean_whole(reader, discard)
    except NoSuchProcess:
        raise
    except (SegmentError, ValueError) as error:
        return _clean_damaged(name, discard, str(error))


def _clean_whole(reader: Reader, discard: bool) -> Cleaned:
    name, locks = reader.name, os.open(f"/proc/self/fd/{reader.segment.file}", os.O_RDWR | os.O_CLOEXEC)
    try:
        held = _take_all(locks, reader.geometry.max_slots)
        if held is not None and held != TURN_LOCK and let_go(reader.segment, held):
            held = _take_all(locks, reader.geometry.max_slots)
        if held is not None:
            reader.refresh()
            return Cleaned(name, False, 0, _who(reader, held))
        # Under the locks: another clean-up may have removed it, and an owner made a new one, since it was opened.
        if not is_in_place(reader.segment):
            return Cleaned(name, False, 0, "it is being replaced by another one")
        reader.refresh()
        before = reader.u64(reader.seg.procinfo + const.PI_STATE)
        _put_state(locks, reader, const.P_DYING | ((before >> 8) + 1 << 8))
        reader.refresh()
        waiting, dead = reader.waiting(settled=True), reader.dead
        lost = waiting + dead
        if lost and not discard:
            # DYING: whoever ended it, or cleaned it up, was killed there.
            state = const.P_WAITING if before & 0xFF == const.P_DYING else before & 0xFF
            _put_state(locks, reader, state | ((before >> 8) + 2 << 8))
            return Cleaned(name, False, 0, f"{_what_stays(name, waiting, dead)}, or --discard them")
        remove(reader.segment)
        return Cleaned(name, True, lost, "discarded" if lost else "nothing waited")
    finally:
        os.close(locks)


def _what_stays(name: str, waiting: int, dead: int) -> str:
    """What keeps a segment, and what to do about it, for people."""
    events = [f"{waiting} events wait: start it to handle them"] if waiting else []
    letters = [f"{dead} dead letters stay: upcall dead {name} shows them"] if dead else []
    return ", ".join(events + letters)


def _who(reader: Reader, held: int) -> str:
    """Why a lock could not be taken, for people."""
    if held == TURN_LOCK:
        return "somebody starts it, or cleans it up, just now"
    what = "attended by" if held == SUPERVISOR_SLOT else "in use by a sender,"
    return f"{what} pid {reader.slot_pid(held)}"


def _put_state(file: int, reader: Reader, state: int) -> None:
    """Writes the process's state. Nobody else can: every slot is ours."""
    os.pwrite(file, struct.pack("Q", state & (1 << 64) - 1), reader.seg.procinfo + const.PI_STATE)


def _clean_damaged(name: str, discard: bool, error: str) -> Cleaned:
    """A segment that cannot be read: nobody knows what waits in it, so it takes a word to remove it."""
    if not discard:
        return Cleaned(name, False, None, f"{error}; --discard removes it")
    path = folder() / name
    try:
        locks = os.open(path / "segment", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as problem:
        return Cleaned(name, False, None, f"{error}; {problem.strerror}")
    try:
        # Another version's process may be alive in it, and lock its slots as this one does.
        if _take_all(locks, const.MAX_SLOTS) is not None:
            return Cleaned(name, False, None, f"{error}; somebody is attached to it")
        if not leads_to(path, locks):
            return Cleaned(name, False, None, "it is being replaced by another one")
        remove_files(path)
        return Cleaned(name, True, None, f"it could not be read: {error}")
    finally:
        os.close(locks)


def _take_all(file: int, count: int) -> int | None:
    """Locks every slot through this open of the file, in turn with those that start the process. The first that somebody
    alive holds, or None. They are taken only if all were free before: a lock that is held, if only for a moment, says that
    a dead host lives."""
    if not try_lock(file, TURN_LOCK):
        return TURN_LOCK
    held = next((slot for slot in range(count) if is_locked(file, slot)), None)
    return next((slot for slot in range(count) if not try_lock(file, slot)), None) if held is None else held
