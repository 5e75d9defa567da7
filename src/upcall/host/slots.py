"""Attach slots: who is attached, under which name, and how everybody else knows whether it still lives.

Each attached thread holds one slot of the segment's table and a byte-range lock (of the open-file kind) on one byte for
it, far behind the file's data. The kernel drops the lock when its holder dies, whatever the cause. The lock file is an
open of its own, never mapped and never passed on: a mapping or a descriptor that a child inherits would keep the lock up.
A forked child closes it first thing.

Two bytes are locked: the slot's, so that nobody else takes it, and the name's, by which everybody asks whether its owner
lives. Both are, then the slot's generation rises, then the name (slot, generation) is used: so whoever finds a name with an
older generation knows without asking that its owner is gone. With the slot's byte alone a dead name would live again from
the lock to the generation, and for as long as the taker is stopped between them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator

from ..errors import SegmentError
from ..front import port
from ..kern import const
from ..kern.layout import name_of

LOCK_BASE = 1 << 40
NAME_LOCKS = 1 << 40
"""Behind the slots' bytes, and behind LOCK_BASE like them: a byte for each name."""
_FLOCK = struct.Struct("hhqqi4x")
SUPERVISOR_SLOT = 0
"""Slot 0 is the supervisor's: whoever holds it attends the process."""
TURN_LOCK = const.MAX_SLOTS
"""Behind the slots' bytes: who starts the process, or cleans it up, does so in turn with others. Whoever finds slot 0
locked while it holds this one knows that a living supervisor has it, and no clean-up that only looks."""
WATCHER_LOCK = const.MAX_SLOTS + 1
"""The watcher's, among the workers of a process that has lost its supervisor; the next one waits for it."""
PATIENCE_S = 10.0
"""How long to wait for one who starts or cleans up: it takes milliseconds, unless it was stopped there."""


def _lock(fd: int, command: int, kind: int, slot: int) -> tuple[int, ...]:
    packed = _FLOCK.pack(kind, os.SEEK_SET, LOCK_BASE + slot, 1, 0)
    found: tuple[int, ...] = _FLOCK.unpack(fcntl.fcntl(fd, command, packed))
    return found


def is_locked(fd: int, slot: int) -> bool:
    """Whether somebody (through another open of the file than `fd`) holds the slot's lock."""
    return _lock(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, slot)[0] != fcntl.F_UNLCK


def try_lock(fd: int, slot: int) -> bool:
    """Takes the slot's lock if nobody has it."""
    try:
        _lock(fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, slot)
    except OSError:
        return False
    return True


def unlock(fd: int, slot: int) -> None:
    """Lets the slot's lock go."""
    _lock(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, slot)


class SlotTable:
    """The attach slots of one segment, as one process uses them. `at` is the table's offset."""

    def __init__(self, attachment: port.Attachment, at: int, count: int) -> None:
        self._attachment = attachment
        self._at = at
        self._count = count
        self._mine: set[int] = set()
        # Taken again by its own thread: a signal's handler may send, or the collector find an ended thread's name.
        self._guard = threading.RLock()
        self.fd = attachment.locks

    def _word(self, slot: int) -> int:
        return self._attachment.u64(self._at + slot * const.SLOT_STRIDE)

    def _lock(self, byte: int) -> bool:
        return try_lock(self.fd, byte)

    def _unlock(self, byte: int) -> None:
        unlock(self.fd, byte)

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """While nobody else starts this process, or cleans it up. SegmentError if one of them does not come to its end."""
        end = time.monotonic() + PATIENCE_S
        while not try_lock(self.fd, TURN_LOCK):
            if time.monotonic() > end:
                raise SegmentError(
                    f"another program that starts this process, or upcall clean, has not gone on for {PATIENCE_S:.0f} s: "
                    "if it is stopped, let it go on or end it"
                )
            time.sleep(0.001)
        try:
            yield
        finally:
            unlock(self.fd, TURN_LOCK)

    def wait_to_watch(self) -> None:
        """Waits until no other worker has the watcher's role: its holder's death passes it on. For a thread of its own."""
        packed = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, LOCK_BASE + WATCHER_LOCK, 1, 0)
        fcntl.fcntl(self.fd, fcntl.F_OFD_SETLKW, packed)

    def stop_watching(self) -> None:
        """Gives the watcher's role to another worker."""
        unlock(self.fd, WATCHER_LOCK)

    def take(self, role: int, slot: int | None = None) -> tuple[int, int]:
        """Takes a free slot (or the given one) and returns its number and generation. SegmentError if none is free."""
        found = self._take(role, slot)
        if found is None and slot is None:
            # A clean-up holds all of them while it looks. In turn with it, only those that live do.
            with self.in_turn():
                found = self._take(role, slot)
        if found is not None:
            return found
        if slot is not None:
            raise SegmentError(f"attach slot {slot} is held by a living process")
        raise SegmentError(f"all {self._count - 1} attach slots are in use: close handles that are not needed")

    def _take(self, role: int, slot: int | None) -> tuple[int, int] | None:
        with self._guard:
            candidates = range(1, self._count) if slot is None else [slot]
            # Slots that say nobody is attached first; then those whose owner died without saying so.
            for marked in (False, True):
                for i in candidates:
                    attached = bool(self._word(i) >> 32)
                    if i not in self._mine and attached == marked and (found := self._claim(i, role)):
                        return found
        return None

    def _claim(self, slot: int, role: int) -> tuple[int, int] | None:
        """The slot and its generation, unless somebody has it."""
        self._mine.add(slot)  # first: to whoever runs in the middle of this the kernel would give the same lock
        with contextlib.ExitStack() as undo:
            undo.callback(self._mine.discard, slot)
            if not self._lock(slot):
                return None
            generation = ((self._word(slot) & const.SLOT_GEN_MASK) + 1) & const.SLOT_GEN_MASK or 1
            if not self._lock(NAME_LOCKS + name_of(slot, generation)):
                self._unlock(slot)  # somebody holds a name that nobody has: no protocol step does that
                return None
            self._settle(slot, generation, role)
            undo.pop_all()
        return slot, generation

    def _settle(self, slot: int, generation: int, role: int) -> None:
        at, put_u32, put_u64 = self._at + slot * const.SLOT_STRIDE, self._attachment.put_u32, self._attachment.put_u64
        # The generation first: it declares every claim of the former owner dead before this one makes any. Pairs with
        # `name_is_dead`: who reads it has the kernel's word, through the lock, for what that owner has written.
        put_u64(at + const.AS_WORD, generation | 1 << 32)
        for counter in range(const.AS_SENT, const.SLOT_STRIDE, 8):
            put_u64(at + counter, 0)
        put_u32(at + const.AS_PID, os.getpid())
        put_u32(at + const.AS_TID, threading.get_native_id())
        put_u64(at + const.AS_ROLE, role)
        put_u64(at + const.AS_SINCE, time.time_ns())

    def give_back(self, slot: int) -> None:
        """Gives a slot back: marked first, unlocked then."""
        with self._guard:
            if slot not in self._mine:
                return
            generation = self._word(slot) & const.SLOT_GEN_MASK
            self._attachment.put_u64(self._at + slot * const.SLOT_STRIDE, generation)
            self._unlock(NAME_LOCKS + name_of(slot, generation))
            self._unlock(slot)
            self._mine.discard(slot)  # last, for the same reason

    def attached(self, probe: int) -> list[int]:
        """The slots whose owners live, asked through another open of the file."""
        return [i for i in range(self._count) if self._word(i) >> 32 and (i in self._mine or is_locked(probe, i))]

    def close(self) -> None:
        """Gives every slot back."""
        for slot in list(self._mine):
            self.give_back(slot)
        self._attachment.close_file(self.fd)
