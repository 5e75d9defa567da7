"""Asking a process's supervisor for something, and stopping a process that has none."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from .. import errors
from ..errors import NoSuchProcess, UpcallError
from ..kern import const
from ..kern.layout import Seg
from .changes import Line
from .control import address, stopped
from .owner import attend, finish, left_over, nudge, publish, tell_to_stop
from .segment import Segment, folder, is_in_place, make_fifos, open_segment
from .settle import Host, host_name, open_host, pid_of, settle
from .slots import PATIENCE_S

TELL_S, TELL_MAX_S = 0.05, 1.0
"""When to tell those that stop once more, as the supervisor does."""
Say = Callable[[Line], object]
KINDS: dict[str, type[Exception]] = {name: getattr(errors, name) for name in errors.__all__} | {
    "ValueError": ValueError
}


def ask(name: str, request: Line, say: Say, timeout: float | None = None) -> Line:
    """Asks the supervisor of a process; `say` gets the lines that tell what happens. What it answers in the end.

    NoSuchProcess; UpcallError if nobody supervises it, or its supervisor dies meanwhile; TimeoutError past `timeout`
    seconds: what was asked for goes on. Other errors are the supervisor's own."""
    end = None if timeout is None else time.monotonic() + timeout
    link = _connect(name)
    if link is None:
        raise UpcallError(
            f"nobody supervises {name!r}: start it again (upcall run), which takes over the workers that live, or stop it"
        )
    try:
        return _talk(link, name, request, say, end)
    except ConnectionError:
        raise UpcallError(
            f"the supervisor of {name!r} ended before it had finished: look at it, and try again"
        ) from None


def stop(name: str, how: str | None, say: Say, timeout: float | None = None) -> Line:
    """Stops a process, as its definition says or as `how` does ("drain", "now"), whether it has a supervisor or not.
    NoSuchProcess; TimeoutError past `timeout` seconds: it goes on stopping."""
    end = None if timeout is None else time.monotonic() + timeout
    asked = False
    while True:
        try:
            link = _connect(name)
            done = None if link is not None else stop_workers(name, how or "drain", say, _left(end))
        except NoSuchProcess:
            if not asked:
                raise
            return stopped(True, "")  # the supervisor that we asked ended before it could say so
        if done is not None:
            return done
        if link is not None:
            asked = True
            with contextlib.suppress(ConnectionError):
                return _talk(link, name, {"do": "stop", "stop": how}, say, end)


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


def _connect(name: str) -> socket.socket | None:
    """A connection to the supervisor; None if there is none. UpcallError if there is one that does not listen."""
    patience = time.monotonic() + PATIENCE_S
    while True:
        segment = open_segment(name)
        try:
            if not segment.is_attended():
                return None
            link = _dial(segment)
            if link is not None:
                return link
            pid = pid_of(segment, segment.u64(segment.seg.procinfo + const.PI_SUPERVISOR))
            hosts = [pid_of(segment, host_name(segment, v)) for v in range(segment.geometry.max_vcores)]
        finally:
            segment.close()
        if pid and pid in hosts:
            raise UpcallError(
                f"the vcores of {name!r} are threads of pid {pid}, without a supervisor: ask that program"
            )
        # It starts, or ends, or stops workers that it has not started: it will listen, or be gone.
        if time.monotonic() > patience:
            raise UpcallError(f"pid {pid}, which attends {name!r}, does not listen: is it stopped?")
        time.sleep(0.01)


def _dial(segment: Segment) -> socket.socket | None:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(PATIENCE_S)
        at = os.open(segment.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            link.connect(address(at))
        finally:
            os.close(at)
    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):  # not yet, no more, or many others before us
        link.close()
        return None
    except BaseException:
        link.close()
        raise
    return link


def _talk(link: socket.socket, name: str, request: Line, say: Say, end: float | None) -> Line:
    with link, link.makefile("rwb") as lines:
        try:
            link.settimeout(_left(end))
            lines.write(json.dumps(request).encode() + b"\n")
            lines.flush()
            while True:
                link.settimeout(_left(end))
                answer: dict[str, Any] = json.loads(lines.readline() or b"{}")
                if "error" in answer:
                    raise KINDS.get(answer.get("kind", ""), UpcallError)(answer["error"])
                if "ok" in answer:
                    found: Line = answer["ok"]
                    return found
                if not answer:
                    raise ConnectionResetError
                say(answer)
        except TimeoutError:
            raise TimeoutError(f"process {name!r} has not finished in time: it goes on with it") from None


def stop_workers(name: str, how: str, say: Say, timeout: float | None = None) -> Line | None:
    """Stops a process that has no supervisor, by attending it for so long. None: somebody else attends it by now.
    NoSuchProcess; TimeoutError naming those who have not ended: they go on ending."""
    segment = open_segment(name)
    try:
        if not attend(segment):
            return None
        if not is_in_place(segment):
            raise NoSuchProcess(f"process {name!r} was removed meanwhile from {folder()}")
        supervisor = segment.supervisor
        assert supervisor is not None
        make_fifos(segment)
        publish(segment, supervisor)
        number = const.STOP_DRAIN if how == "drain" else const.STOP_NOW
        _end_hosts(segment, supervisor, number, say, None if timeout is None else time.monotonic() + timeout)
        removed = finish(segment, supervisor)
        return stopped(removed, "" if removed else left_over(segment, supervisor))
    finally:
        segment.close()


def _end_hosts(segment: Segment, seg: Seg, how: int, say: Say, end: float | None) -> None:
    """Tells all hosts to stop, and waits until none is left: one that a dying supervisor had started may come late."""
    told, patience = False, time.monotonic() + PATIENCE_S
    while True:
        found = [open_host(segment, seg, v) for v in range(segment.geometry.max_vcores)]
        hosts = {host.pidfd: host for host in found if host is not None}
        if hosts or not told:
            tell_to_stop(segment, seg, [host.vcoreid for host in hosts.values()], how)
            told = True
        try:
            _wait_for_all(segment, seg, hosts, say, end)
        finally:
            for pidfd in hosts:
                os.close(pidfd)
        if hosts:
            continue
        alive = [v for v in range(segment.geometry.max_vcores) if settle(segment, seg, v) is None]
        if not alive:
            return
        # Locks without a process that we can find: it has just ended, or lives in another pid namespace.
        if time.monotonic() > patience:
            raise UpcallError(
                f"vcore {alive[0]} of {segment.name!r} is hosted by a process that cannot be found from here"
            )
        time.sleep(0.01)


def _wait_for_all(segment: Segment, seg: Seg, hosts: dict[int, Host], say: Say, end: float | None) -> None:
    poll, left, pause = select.poll(), dict(hosts), TELL_S
    for pidfd in left:
        poll.register(pidfd, select.POLLIN)
    while left:
        ended = poll.poll(min(pause, PATIENCE_S if end is None else max(0.0, end - time.monotonic())) * 1000)
        if not ended and end is not None and time.monotonic() >= end:
            who = ", ".join(f"vcore {host.vcoreid} (pid {host.pid})" for host in left.values())
            raise TimeoutError(f"process {segment.name!r} still stops: {who} has not ended")
        if not ended:
            pause = min(2 * pause, TELL_MAX_S)
            nudge(seg, [host.vcoreid for host in left.values()])
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            host = left.pop(pidfd)
            settle(segment, seg, host.vcoreid, ended=host.pid)
            with contextlib.suppress(OSError):
                say({"vcore": host.vcoreid, "pid": host.pid, "says": "ended"})
