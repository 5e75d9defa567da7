"""Calls whose worker has died: the watcher tells the vcore that asked, and how it died, if it can know that.

Only a parent knows, until it has reaped its child. So a supervisor reaps a worker last of all; whoever watches without
being the parent says that nobody knows.
"""

from __future__ import annotations

import os

from ..errors import WorkerDied
from ..flags import EventType
from ..kern import const
from ..kern import source as table
from . import records
from .handle import Handle
from .records import Source


def how_it_ended(pid: int) -> int | None:
    """What a call's event says (`arg1`) of a worker whose name is dead. None: it is our child, and still about to end,
    which we shall be told."""
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, OverflowError):  # nobody's child that we know; or no pid at all
        return const.CALL_DIED
    if ended is None:
        return None
    return (const.CALL_EXITED if ended.si_code == os.CLD_EXITED else const.CALL_KILLED) + ended.si_status


def tell_of_death(handle: Handle, source: Source, how: int) -> bool:
    """Sends the event of a call whose worker is dead. False to be called again."""
    seg = handle.thread().seg
    if not table.begin_firing(seg, source.id):
        # Another watcher is about it; if it dies before it has sent, it is ours.
        return records.read(handle.segment, source.id) is None
    status = handle.vcore_sender().post_vcore(
        EventType.SYSCALL, source.name.encode(), source.base, True, how, source.pid & 0xFFFFFFFF, source.id, source.value,
    )  # fmt: skip
    sent = status not in (const.FULL, const.BUSY)
    table.end_firing(seg, source.id, int(sent), const.SOURCE_FREE if sent else const.SOURCE_SET)
    return sent


def died_in_call(name: str, call: str, pid: int, how: int) -> WorkerDied:
    """The error that such an event is."""
    from .worker import describe_exit

    status = None
    if how >= const.CALL_EXITED:
        status = (how - const.CALL_EXITED) << 8
    elif how >= const.CALL_KILLED:
        status = how - const.CALL_KILLED
    how_it_died = describe_exit(status)
    return WorkerDied(
        f"worker {pid} of {name!r} died ({how_it_died}) while it called {call}, or before it had the result",
        call, pid, status,
    )  # fmt: skip
