"""The page that a server shares with its victims and with their machine layer: `up_deaths` in `upcall_deaths.h`, and
behind it how far the server is, for whoever wonders why it does not answer."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

_ARM = struct.Struct("IIQQQ16s")
_PLACE = 256
SIZE = 4096


class Page:
    """The page in the file at `path`, which is made if it is missing."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, SIZE)
        self.memory = mmap.mmap(fd, SIZE)
        os.close(fd)

    def prepare(self, at: int, signal: int) -> None:
        """The next victim gets `signal` before its step number `at`; 0: never."""
        _ARM.pack_into(self.memory, 0, 0, signal, at, 0, 0, b"")

    def arm(self) -> None:
        """The calling process is the victim: its steps count from now on."""
        struct.pack_into("I", self.memory, 0, os.getpid())

    def disarm(self) -> None:
        struct.pack_into("I", self.memory, 0, 0)

    def step(self, what: str, offset: int) -> None:
        """A step that is not the machine layer's."""
        pid, signal, at, seen, _, _ = _ARM.unpack_from(self.memory, 0)
        if pid != os.getpid():
            return
        _ARM.pack_into(self.memory, 0, pid, signal, at, seen + 1, offset, what.encode()[:15])
        if seen + 1 == at:
            os.kill(pid, signal)

    @property
    def seen(self) -> int:
        """How many steps the victim has come."""
        return int(_ARM.unpack_from(self.memory, 0)[3])

    @property
    def step_name(self) -> str:
        """Before which step it was sent the signal."""
        *_, offset, what = _ARM.unpack_from(self.memory, 0)
        return f"{what.split(bytes(1), 1)[0].decode()} at {offset:#x}"

    def say(self, place: str) -> None:
        """Where the server is."""
        self.memory[_PLACE : _PLACE + 256] = place.encode()[:255].ljust(256, b"\0")

    def place(self) -> str:
        return self.memory[_PLACE : _PLACE + 256].split(b"\0", 1)[0].decode()
