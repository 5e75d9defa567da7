"""Hosts as others see them: who hosts a vcore, whether it lives, and what is done for one that is dead.

A host is found through its name (attach slot and generation, in VCPD_HOST), never through a pid alone: pids come back with
another owner. A pidfd is opened first, and the name asked afterwards: if it lives then, the pidfd is its own.

Whoever watches may do all of this, two watchers at once included: each step is done again by the next one, and changes
nothing that belongs to somebody alive.
"""

from __future__ import annotations

import contextlib
import os
import select
from dataclasses import dataclass
from pathlib import Path

from ..kern import const
from ..kern.layout import Seg, slot_record_at, vcpd_at
from ..kern.pages import bury_name, name_is_dead
from ..kern.proc import unhost_vcore
from ..parlib.mbox import tell_drainers
from ..parlib.recover import recover_vcore
from .segment import Segment


@dataclass(frozen=True)
class Host:
    """A living host: its name in the segment, and its process. The pidfd is closed by whoever asked."""

    vcoreid: int
    name: int
    pid: int
    pidfd: int


def host_name(segment: Segment, vcoreid: int) -> int:
    """The name of a vcore's host, alive or not; 0: it has none."""
    return segment.u64(vcpd_at(segment.seg, vcoreid) + const.VCPD_HOST)


def of_slot(segment: Segment, name: int, at: int) -> int:
    """A u64 of the attach slot of a name; 0 if the slot has another owner by now."""
    slot = name & const.SLOT_MASK
    if not name or slot >= segment.geometry.max_slots:
        return 0
    record = slot_record_at(segment.seg, slot)
    found = segment.u64(record + at)
    return found if segment.u64(record + const.AS_WORD) & const.SLOT_GEN_MASK == name >> 12 else 0


def pid_of(segment: Segment, name: int) -> int:
    """The process of a name; 0 if nobody knows any more."""
    return of_slot(segment, name, const.AS_PID) & 0xFFFFFFFF


def open_living(segment: Segment, seg: Seg, name: int) -> tuple[int, int] | None:
    """The pid and a new pidfd of a name's owner; None if it is dead."""
    if not name or name_is_dead(seg, name):
        return None
    pid = pid_of(segment, name)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    # Alive after the open: nobody else can have got its number before.
    if name_is_dead(seg, name):
        os.close(pidfd)
        return None
    return pid, pidfd


def open_host(segment: Segment, seg: Seg, vcoreid: int) -> Host | None:
    """A vcore's host, a process of its own, if it lives. Whoever is found here may be sent signals, so the segment's word
    is not enough: the process must hold the read end of the vcore's FIFO, as its host does from before it is named."""
    name = host_name(segment, vcoreid)
    found = open_living(segment, seg, name)
    if found is None or _reads(found[0], segment.path / f"vc{vcoreid}"):
        return None if found is None else Host(vcoreid, name, *found)
    os.close(found[1])
    return None


def _reads(pid: int, path: Path) -> bool:
    """Whether a process has a file open for reading. False too if we may not look."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as files:
        wanted = path.stat(follow_symlinks=False)
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                # The name first: a look at any file behind a link could wait for a server that is gone.
                readable = file.stat(follow_symlinks=False).st_mode & 0o400
                if readable and Path(os.readlink(file)).name == path.name and os.path.samestat(os.stat(file), wanted):
                    return True
    return False


def open_supervisor(segment: Segment, seg: Seg) -> int | None:
    """A pidfd of the supervisor that attends the process; None if none lives."""
    found = open_living(segment, seg, segment.u64(segment.seg.procinfo + const.PI_SUPERVISOR))
    return None if found is None else found[1]


def has_ended(pidfd: int) -> bool:
    """Whether a process has ended, reaped or not."""
    return wait_for_end(pidfd, 0)


def wait_for_end(pidfd: int, timeout_ms: int | None = None) -> bool:
    """Waits for a process to end; whether it has."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_ms))


def settle(segment: Segment, seg: Seg, vcoreid: int, ended: int = 0) -> int | None:
    """Takes over for a vcore's host that is dead; afterwards somebody must `announce`. How many messages that it, or
    another dead one, had in its hands will be handled again; None: somebody alive hosts it, and nothing was done. `ended`:
    a pid that the caller has seen end; a child that it was just making may keep its lock a moment longer."""
    name = host_name(segment, vcoreid)
    if ended and pid_of(segment, name) == ended:
        bury_name(seg, name)
    if name and not name_is_dead(seg, name):
        return None
    unhost_vcore(seg, vcoreid)
    again: int = recover_vcore(seg, vcoreid, name)
    tell_drainers(seg)  # as a host that leaves
    return again


def tell_watcher(segment: Segment) -> None:
    """Whoever watches looks anew: there is a new host, or another watcher."""
    with contextlib.suppress(OSError):  # nobody reads: nobody watches, and who comes looks by itself
        fifo = os.open(segment.path / "watch", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.write(fifo, b"\0")
        finally:
            os.close(fifo)
