"""Asking a process's supervisor for something, and stopping a process that has none."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

from .. import errors
from ..errors import NoSuchProcess, UpcallError
from ..kern import const
from ..kern.layout import Seg
from .changes import Line
from .control import LINE_MAX, address, stopped
from .inherited import let_go
from .linux import how_to_go_on, is_stopped, open_other_end
from .owner import attend, finish, left_over, living, nudge, publish, tell_to_stop
from .segment import Segment, folder, is_in_place, make_fifos, open_segment
from .settle import Host, host_name, open_host, pid_of, settle
from .slots import PATIENCE_S, SUPERVISOR_SLOT

TELL_S, TELL_MAX_S = 0.05, 1.0
"""When to tell those that stop once more, and when to look whether one is stopped, as the supervisor does."""
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
    if not isinstance(link, socket.socket):
        if link:
            raise UpcallError(f"pid {link} stops {name!r} just now")
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
    told = False
    open_segment(name).close()
    while True:
        done = None
        try:
            link = _connect(name, end)
            if link is None:
                done = stop_workers(name, how or "drain", say, _left(end))
        except NoSuchProcess:
            return stopped(True, "")  # it was there: who stops it has ended, and could not or would not say so
        if done is not None:
            return done
        if isinstance(link, socket.socket):
            with contextlib.suppress(ConnectionError):
                return _talk(link, name, {"do": "stop", "stop": how}, say, end)
        elif link:
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"process {name!r} still stops: pid {link} is about it")
            if not told:
                say({"pid": link, "says": "stops it already: waiting for that"})
            told = True


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


def _connect(name: str, end: float | None = None) -> socket.socket | int | None:
    """A connection to the supervisor; None if there is none; the pid of one that stops the process and listens to nobody.
    UpcallError if there is another one that does not listen."""
    begin = time.monotonic()
    while True:
        segment = open_segment(name)
        try:
            if not segment.is_attended() or let_go(segment, SUPERVISOR_SLOT):
                return None
            link = _dial(segment)
            if link is not None:
                return link
            pid = pid_of(segment, segment.u64(segment.seg.procinfo + const.PI_SUPERVISOR))
            hosts = [pid_of(segment, host_name(segment, v)) for v in range(segment.geometry.max_vcores)]
            stops = segment.u32(segment.seg.procinfo + const.PI_STOP)
        finally:
            segment.close()
        if pid and pid in hosts:
            raise UpcallError(
                f"the vcores of {name!r} are threads of pid {pid}, without a supervisor: ask that program"
            )
        # It starts, or ends, or stops workers that it has not started: it will listen, or be gone.
        waited = time.monotonic() - begin
        if waited > TELL_MAX_S and is_stopped(pid):
            raise UpcallError(f"pid {pid}, which attends {name!r}, {how_to_go_on(pid)}")
        if stops and (waited > TELL_MAX_S or _left(end) == 0):
            return pid
        if waited > PATIENCE_S:
            raise UpcallError(f"pid {pid}, which attends {name!r}, does not listen")
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
    waits_for = ""
    with link:
        link.sendall(json.dumps(request).encode() + b"\n")
        for answer in _lines(link, end):
            if "error" in answer:
                raise KINDS.get(answer.get("kind", ""), UpcallError)(answer["error"])
            if "ok" in answer:
                found: Line = answer["ok"]
                return found
            if "late" in answer:
                raise TimeoutError(f"process {name!r} has not finished in time: it goes on with it{waits_for}")
            if "is stopped" in str(answer.get("says")):
                waits_for = f"; {called(answer)} {answer['says']}"
            say(answer)
    raise ConnectionResetError


def called(line: Line) -> str:
    """Who a line of progress is about, for people."""
    who = f"vcore {line['vcore']}" if "vcore" in line else f"pid {line['pid']}"
    return f"{who} (pid {line['pid']})" if "vcore" in line and line.get("pid") else who


def _lines(link: socket.socket, end: float | None) -> Iterator[Line]:
    """What a supervisor says, until it ends, or it is "late". ConnectionError if it has ended already."""
    pid: int = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    got, told = b"", False
    poll = select.poll()
    with contextlib.ExitStack() as files:
        poll.register(link, select.POLLIN)
        pidfd = open_other_end(link)
        if pidfd >= 0:
            files.callback(os.close, pidfd)
            poll.register(pidfd, select.POLLIN)
        while True:
            left = _left(end)
            ready = [fd for fd, _ in poll.poll(1000 * (TELL_MAX_S if left is None else min(left, TELL_MAX_S)))]
            if link.fileno() in ready:
                data = link.recv(LINE_MAX)
                *lines, got = (got + data).split(b"\n")
                yield from map(json.loads, lines)
                if not data:
                    return
            elif ready:
                return
            elif left == 0:
                yield {"late": True}
            elif not told and is_stopped(pid):
                told = True
                yield {"pid": pid, "says": f"supervises it, and {how_to_go_on(pid)}"}


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
        alive = living(segment, seg)
        if not alive:
            return
        # Locks without a process that we can find: it has just ended, or lives in another pid namespace.
        if time.monotonic() > patience:
            raise UpcallError(
                f"vcore {alive[0]} of {segment.name!r} is hosted by a process that cannot be found from here"
            )
        time.sleep(0.01)


def _wait_for_all(segment: Segment, seg: Seg, hosts: dict[int, Host], say: Say, end: float | None) -> None:
    poll, left, pause, seen_stopped = select.poll(), dict(hosts), TELL_S, set[int]()
    for pidfd in left:
        poll.register(pidfd, select.POLLIN)
    while left:
        ended = poll.poll(min(pause, PATIENCE_S if end is None else max(0.0, end - time.monotonic())) * 1000)
        if not ended and end is not None and time.monotonic() >= end:
            who = ", ".join(f"vcore {host.vcoreid} (pid {host.pid})" for host in left.values())
            still = "; ".join(
                f"pid {host.pid} {how_to_go_on(host.pid)}" for host in left.values() if is_stopped(host.pid)
            )
            raise TimeoutError(f"process {segment.name!r} still stops: {who} has not ended{still and f'; {still}'}")
        if not ended:
            pause = min(2 * pause, TELL_MAX_S)
            nudge(seg, [host.vcoreid for host in left.values()])
        for pidfd, host in left.items():
            if pause == TELL_MAX_S and pidfd not in seen_stopped and is_stopped(host.pid):
                seen_stopped.add(pidfd)
                _tell(say, {"vcore": host.vcoreid, "pid": host.pid, "says": how_to_go_on(host.pid)})
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            host = left.pop(pidfd)
            settle(segment, seg, host.vcoreid, ended=host.pid)
            _tell(say, {"vcore": host.vcoreid, "pid": host.pid, "says": "ended"})


def _tell(say: Say, line: Line) -> None:
    """Progress, which nobody may be there to read: the stop goes on."""
    with contextlib.suppress(OSError):
        say(line)
