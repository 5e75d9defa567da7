"""What Linux has and Python 3.11 has not: timers and signals as descriptors, a wait for a file to appear, who a pid is."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
CLOCK_REALTIME = time.CLOCK_REALTIME
_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK  # what TFD_, SFD_ and IN_ call by their own names
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
_IN_CREATE, _IN_MOVED_TO, _IN_DELETE_SELF = 0x100, 0x80, 0x400
_SIGINFO = 128
_FAR_NS = 1 << 62
"""Later than any time that can be asked for; a damaged segment may say more than the kernel takes."""


@functools.cache
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: Any) -> int:
    """A function of the C library. OSError."""
    import ctypes  # slow, and `import upcall` does not need it

    result: int = getattr(_libc(), name)(*args)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def boot_ns() -> int:
    """Nanoseconds since the machine's boot, sleep included: the same in every process."""
    return time.clock_gettime_ns(CLOCK_BOOTTIME)


class Timer:
    """A timerfd: readable from a point in time on. Of the wall clock, also when that has been set."""

    def __init__(self, clock: int) -> None:
        self.clock = clock
        self.fd = _call("timerfd_create", clock, _CLOEXEC_NONBLOCK)
        self.at: int | None = None

    def set(self, at: int | None) -> None:
        """Readable from `at` (nanoseconds of its clock) on; None: never."""
        if at == self.at:
            return
        self.at = at
        # A time of 0 would switch it off; one that is over is readable at once.
        seconds, rest = (0, 0) if at is None else divmod(min(max(1, at), _FAR_NS), 1_000_000_000)
        flags = _TFD_TIMER_ABSTIME | (_TFD_TIMER_CANCEL_ON_SET if self.clock == CLOCK_REALTIME else 0)
        spec = struct.pack("qqqq", 0, 0, seconds, rest)
        _call("timerfd_settime", self.fd, flags, spec, None)

    def take(self) -> None:
        """It was readable: not any more until it is set anew."""
        self.at = None
        try:
            os.read(self.fd, 8)
        except OSError:
            pass  # ECANCELED: the clock was set; EAGAIN: set anew meanwhile

    def close(self) -> None:
        """Closes it."""
        os.close(self.fd)


def open_signals(numbers: Iterable[int]) -> int:
    """A signalfd for signals that this thread blocks."""
    mask = sum(1 << (number - 1) for number in numbers)
    held = struct.pack("Q", mask) + bytes(120)
    return _call("signalfd", -1, held, _CLOEXEC_NONBLOCK)


def take_signals(fd: int) -> list[int]:
    """The numbers of the signals that have come to a signalfd."""
    try:
        data = os.read(fd, 64 * _SIGINFO)
    except BlockingIOError:
        return []
    return [struct.unpack_from("I", data, at)[0] for at in range(0, len(data), _SIGINFO)]


def open_lookout(folder: Path) -> int:
    """An inotify descriptor: readable when a file appears in a folder, or the folder goes."""
    fd = _call("inotify_init1", _CLOEXEC_NONBLOCK)
    try:
        _call("inotify_add_watch", fd, os.fsencode(folder), _IN_CREATE | _IN_MOVED_TO | _IN_DELETE_SELF)
    except OSError:
        os.close(fd)
        raise
    return fd


def open_other_end(link: socket.socket) -> int:
    """A pidfd of who listened at the other end of a connection, for its end: the connection does not tell that while a
    child of it that was stopped when it was made has a copy. -1 for one in another pid namespace; ConnectionResetError if it
    has ended."""
    pid: int = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    try:
        return os.pidfd_open(pid) if pid else -1
    except ProcessLookupError:
        raise ConnectionResetError from None


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: with its pid it names the process for good. ProcessLookupError."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(3, os.strerror(3)) from None
    return int(text.rpartition(b")")[2].split()[19])


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped (SIGSTOP, job control), or is traced and stands still."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (FileNotFoundError, ProcessLookupError):
        return False


def how_to_go_on(pid: int) -> str:
    """What there is to be done about a process that is stopped, for people."""
    return f"is stopped: kill -CONT {pid} lets it go on, kill -KILL {pid} ends it"


def reap(pid: int) -> int | None:
    """Waits for a child to end, and lets its pid go: its wait status; None if the program has taken that (SIGCHLD is
    ignored, or somebody waits for any child)."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, 0)[1]
    return None


def exit_status(pid: int) -> int | None:
    """The wait status of a child that has ended, which is not reaped here; None if it is nobody's that we know."""
    with contextlib.suppress(ChildProcessError):
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            return ended.si_status << 8 if ended.si_code == os.CLD_EXITED else ended.si_status
    return None
