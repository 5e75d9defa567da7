"""Locks that outlive their holder: a child that it was just making has a copy of them.

The kernel drops a liveness lock when the last copy of its descriptor goes. A forked child closes its copies before anything
else (`machine/upcall_machine.h`), but one that is stopped between the fork and that keeps its parent's name alive for as
long, also when the parent is dead. Such a child has not done anything yet, and would let go next: it is ended. It is known
by what the kernel says of its descriptors, not by a pid of the segment: nobody who has no copy of the lock is sent a signal,
and none is who does not stand still, or is the holder itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator

from ..kern import const
from ..kern.layout import slot_record_at
from .linux import is_stopped
from .segment import OURS, Segment
from .settle import wait_for_end
from .slots import LOCK_BASE

log = logging.getLogger("upcall")


def let_go(segment: Segment, slot: int) -> bool:
    """Ends the stopped children that keep up the lock of an attach slot whose owner is dead. Whether there were any."""
    owner = segment.u32(slot_record_at(segment.seg, slot) + const.AS_PID)
    if _holds(owner, segment, slot):
        return False
    holders = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _holds(pid, segment, slot)]
    if any(owner in _numbers(pid) for pid in holders):  # in another pid namespace it has another number
        return False
    return sum(_end(pid, segment, slot, owner) for pid in holders) > 0


def _end(pid: int, segment: Segment, slot: int, owner: int) -> bool:
    with contextlib.suppress(OSError), contextlib.ExitStack() as files:
        pidfd = os.pidfd_open(pid)
        files.callback(os.close, pidfd)
        # Asked after the open: it is this process's descriptor.
        if is_stopped(pid) and _holds(pid, segment, slot):
            log.warning(
                "%s: killed pid %d, a child of pid %d, which is dead: it was stopped while it was made, and held its place",
                segment.name, pid, owner,
            )  # fmt: skip
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return wait_for_end(pidfd)
    return False


def _holds(pid: int, segment: Segment, slot: int) -> bool:
    """Whether a process has a descriptor with the lock of an attach slot. False too if we may not look."""
    return any(first <= LOCK_BASE + slot <= last for first, last in _locks(pid, segment))


def _locks(pid: int, segment: Segment) -> Iterator[tuple[int, int]]:
    """The first and last bytes of the locks that a process's descriptors of a segment hold."""
    wanted = os.fstat(segment.file)
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                path = f"/proc/{pid}/fd/{fd}"
                # The name first: a look at any file behind a link could wait for a server that is gone.
                name = os.path.basename(os.readlink(path)).removesuffix(" (deleted)")
                if OURS.fullmatch(name) and os.path.samestat(os.stat(path), wanted):
                    with open(f"/proc/{pid}/fdinfo/{fd}") as lines:
                        for line in lines:
                            if line.startswith("lock:"):
                                first, last = line.split()[-2:]
                                yield int(first), int(last) if last != "EOF" else 1 << 63


def _numbers(pid: int) -> list[int]:
    """A process's pids, in our namespace and in those below it."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as lines:
        for line in lines:
            if line.startswith("NSpid:"):
                return [int(number) for number in line.split()[1:]]
    return []
