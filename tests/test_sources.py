"""Alarms, taps, watches, calls and signals, through real processes that are killed."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import gc
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import upcall
from procs import (
    Gate,
    Notes,
    abandon,
    bereave,
    discard,
    ended,
    forked,
    output,
    pids,
    program,
    running,
    until,
)
from upcall import EventFlag, EventType, Proc, Ready, inspect
from upcall.host.segment import folder, open_segment
from upcall.kern import const

pytestmark = pytest.mark.usefixtures("nobody_left")


def define(vcores: int = 2, **options: Any) -> Proc:
    proc = Proc("box", vcores=vcores, **options)
    proc.queue("in")
    return proc


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def watched_by_worker() -> int:
    """Waits until a worker watches the others; its pid."""
    return int(until(lambda: inspect.snapshot("box").watcher, "a watcher"))


# ---- alarms --------------------------------------------------------------------------------------------------------


def boot() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def alarms_noted(notes: Notes, **options: Any) -> Proc:
    proc = define(**options)

    @proc.on(EventType.ALARM)
    def rang(ev: Any) -> None:
        notes(ev.arg3, ev.arg2, ev.arg4, boot(), ev.queue)

    return proc


def test_an_alarm_fires_once_and_never_early(notes: Notes) -> None:
    with running(alarms_noted(notes)) as proc:
        start = boot()
        alarm = proc.alarm(after=0.05, queue="in", value=7)
        assert alarm.active
        ((ident, missed, value, at, queue),) = notes.wait(1)
        assert (ident, missed, value, queue) == (alarm.id, 0, 7, "in")
        assert at >= start + 50_000_000
        until(lambda: not alarm.active)
        assert not alarm.cancel()


def test_a_periodic_alarm_does_not_drift_and_counts_what_it_missed(notes: Notes) -> None:
    """The sum of periods, missed ones included, is that of the time gone by."""
    with running(alarms_noted(notes)) as proc:
        start = boot()
        alarm = proc.alarm(every=0.01, queue="in")
        notes.wait(3)
        supervisor = inspect.snapshot("box").pid
        assert supervisor
        os.kill(supervisor, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(supervisor, signal.SIGCONT)
        until(lambda: any(missed > 4 for _, missed, *_ in notes.read()))
        assert alarm.cancel()
        periods = 0
        for _, missed, _, at, _ in notes.read():
            periods += 1 + missed
            assert at >= start + periods * 10_000_000


def test_an_alarm_that_is_cancelled_does_not_fire(notes: Notes) -> None:
    with running(alarms_noted(notes)) as proc:
        late = proc.alarm(after=1, queue="in", value=1)
        assert late.cancel()
        assert not late.active
        proc.alarm(after=1.1, queue="in", value=2)
        assert [value for _, _, value, *_ in notes.wait(1)] == [2]


def test_an_alarm_is_rescheduled_in_one_step(notes: Notes) -> None:
    with running(alarms_noted(notes)) as proc:
        alarm = proc.alarm(after=1000, queue="in", value=3)
        first = alarm.id
        alarm.reschedule(after=0.01)
        ((ident, _, value, *_),) = notes.wait(1)
        assert (ident, value) == (alarm.id, 3)
        assert ident != first
        until(lambda: not alarm.active)
        alarm.reschedule(after=0.01)
        assert [value for _, _, value, *_ in notes.wait(2)] == [3, 3]


def test_a_wall_clock_alarm(notes: Notes) -> None:
    with running(alarms_noted(notes)) as proc:
        at = datetime.datetime.now() + datetime.timedelta(seconds=0.1)
        proc.alarm(at=at, queue="in")
        notes.wait(1)
        assert datetime.datetime.now() >= at
        proc.alarm(at=time.time() - 350, every=100, queue="in")  # three periods are over at once
        assert notes.wait(2)[1][1] == 3


def test_an_alarm_of_a_definition_uses_a_queue_of_its_own(notes: Notes) -> None:
    proc = alarms_noted(notes)
    alarm = proc.alarm(after=0.01, value=5)
    with running(proc):
        ((ident, _, value, _, queue),) = notes.wait(1)
        assert (value, queue) == (5, "alarms")
        assert ident == alarm.id
        until(lambda: not alarm.active)


def test_a_connection_makes_an_alarm_of_the_programs_own_type(notes: Notes) -> None:
    proc = define()

    @proc.on("clean")
    def clean(ev: Any) -> None:
        notes(ev.arg4)

    with running(proc), upcall.connect("box") as remote:
        remote.alarm(after=0, queue="in", type="clean", value=2**64 - 1)
        assert notes.wait(1) == [[2**64 - 1]]
        with pytest.raises(upcall.NoSuchType):
            remote.alarm(after=0, queue="in", type="unknown")
        with pytest.raises(upcall.NoSuchQueue):
            remote.alarm(after=0, queue="out")


def test_an_alarm_survives_the_vcore_that_armed_it(notes: Notes) -> None:
    proc = alarms_noted(notes)

    @proc.on("arm")
    def arm(ev: Any) -> None:
        proc.alarm(after=0.1, queue="in", value=9)
        if not ev.redelivered:
            kill(os.getpid())

    with running(proc):
        proc.queue("in").send("arm")
        found = notes.wait(2)  # the event was handled twice
        assert [value for _, _, value, *_ in found] == [9, 9]


def test_an_alarm_survives_the_supervisor_and_the_watchers_after_it(notes: Notes) -> None:
    proc = alarms_noted(notes, vcores=3)
    proc.start()
    alarm = proc.alarm(every=0.02, queue="in")
    ident = alarm.id
    notes.wait(2)
    bereave(proc)
    kill(watched_by_worker())
    before = len(notes.read())
    notes.wait(before + 5)
    with running(alarms_noted(notes, vcores=3)):  # it takes the workers over, and the alarm with them
        before = len(notes.read())
        assert {i for i, *_ in notes.wait(before + 5)} == {ident}
        with upcall.connect("box") as remote:
            assert upcall.Alarm(remote, ident).cancel()


def test_a_stop_ends_alarms_and_a_death_does_not(notes: Notes) -> None:
    proc = define()
    proc.on("late")(lambda ev: None)
    abandon(proc)
    with upcall.connect("box") as remote:
        remote.alarm(after=0, queue="in", type="late")
        remote.alarm(after=1000, queue="in", type="late")
        assert [s.due_in > 900 for s in inspect.snapshot("box").sources] == [False, True]
    with running(define()) as again:
        until(lambda: len(inspect.snapshot("box").sources) == 1)
        again.stop()
    assert not (folder() / "box").exists()


def test_an_alarm_of_a_full_queue_counts_its_periods(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    proc.queue("in", limit=1, on_full="raise")

    @proc.on(EventType.ALARM)
    def rang(ev: Any) -> None:
        notes(ev.arg2)
        gate.wait()

    with running(proc):
        start = boot()
        alarm = proc.alarm(every=0.005, queue="in")
        until(lambda: boot() > start + 100_000_000)
        gate.open()
        until(lambda: sum(1 + missed for (missed,) in notes.read()) >= 20)
        alarm.cancel()


def test_bad_alarms_are_refused() -> None:
    proc = define()
    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, ValueError, "give after="),
        ({"after": 1, "at": 1}, ValueError, "give one of the two"),
        ({"after": -1}, ValueError, "after=-1 is outside"),
        ({"after": float("nan")}, ValueError, "after=nan"),
        ({"every": 0}, ValueError, "every=0 is outside"),
        ({"every": float("inf")}, ValueError, "every=inf"),
        ({"after": "1"}, TypeError, "must be a number of seconds"),
        ({"after": True}, TypeError, "must be a number of seconds"),
        ({"at": -5}, ValueError, "at=-5"),
        ({"after": 1, "value": -1}, OverflowError, "does not fit"),
        ({"after": 1, "value": 1.5}, TypeError, "integer"),
        ({"after": 1, "type": 7}, TypeError, "must be a str"),
        ({"after": 1, "queue": "out"}, ValueError, "'out' is not defined"),
        ({"after": 1, "type": "own"}, ValueError, "name the queue"),
    ]
    for options, error, says in bad:
        with pytest.raises(error, match=says):
            proc.alarm(**options)
    with running(proc), upcall.connect("box") as remote:
        for options, error, _ in bad[:-2]:
            with pytest.raises(error):
                remote.alarm(**options)
        with pytest.raises(ValueError, match=r"proc\.kernel_queue"):
            remote.alarm(after=1)
        alarm = remote.alarm(after=1000, queue="in")
        remote.close()
        with pytest.raises(upcall.SegmentError, match="closed"):
            alarm.cancel()


def test_a_forked_child_is_told_that_it_is_one() -> None:
    with running(define()) as proc:
        alarm = proc.alarm(after=1000, queue="in")

        def child() -> None:
            for use in (alarm.cancel, lambda: proc.alarm(after=1, queue="in"), lambda: proc.watch(1, queue="in")):
                with pytest.raises(upcall.ForkedHandle):
                    use()

        assert ended(forked(child)) == 0


# ---- taps ----------------------------------------------------------------------------------------------------------


def echo(notes: Notes, vcores: int = 2, **options: Any) -> Proc:
    """Notes what comes from taps, and says it back."""
    proc = define(vcores, **options)

    @proc.on_tap("line")
    def readable(tap: upcall.Tap) -> None:
        try:
            data = os.read(tap.fileno(), 1)
        except BlockingIOError:
            return  # said twice, and read already
        if not data:
            tap.close()
            notes("closed", tap.value)
            return
        notes(data.decode(), tap.value, int(tap.ready), os.getpid())
        if data == b"!":
            kill(os.getpid())
        os.write(tap.fileno(), data.upper())

    return proc


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    # A worker that waits in a read when it is killed may still wake up with the byte, and take it along.
    theirs.setblocking(False)
    return ours, theirs


def received(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += link.recv(1) or b"<end>"
    return data


def test_a_tap_says_again_what_is_still_ready(notes: Notes) -> None:
    with running(echo(notes)) as proc:
        ours, theirs = pair()
        with ours:
            tap = proc.tap(theirs, queue="in", type="line", value=4)
            theirs.close()
            ours.sendall(b"abc")
            found = notes.wait(3)
            assert [(data, value, ready) for data, value, ready, _ in found] == [
                ("a", 4, Ready.READ), ("b", 4, Ready.READ), ("c", 4, Ready.READ)
            ]  # fmt: skip
            assert received(ours, 3) == b"ABC"
            assert not tap.closed
            ours.shutdown(socket.SHUT_WR)
            assert (
                ours.recv(1) == b""
            )  # every copy is closed, ours by its worker, the watcher's and that of this process
            assert notes.wait(4)[3:] == [["closed", 4]]
            assert tap.closed
            with pytest.raises(ValueError, match="is closed"):
                tap.fileno()
            with pytest.raises(ValueError, match="is closed"):
                tap.rearm()
            tap.close()


def test_a_tap_once_says_it_once(notes: Notes) -> None:
    proc = define()

    @proc.on_tap("line")
    def readable(tap: upcall.Tap) -> None:
        notes(os.read(tap.fileno(), 1).decode())

    with running(proc):
        read, write = os.pipe()
        tap = proc.tap(read, queue="in", type="line", once=True)
        os.close(read)
        os.write(write, b"ab")
        notes.wait(1)
        proc.drain()
        assert notes.read() == [["a"]]
        tap.rearm()
        assert notes.wait(2) == [["a"], ["b"]]
        os.close(write)
        tap.close()


def test_a_tap_for_writing(notes: Notes) -> None:
    proc = define()

    @proc.on_tap("room")
    def writable(tap: upcall.Tap) -> None:
        notes(int(tap.ready), os.write(tap.fileno(), b"x"))
        tap.close()

    with running(proc):
        read, write = os.pipe()
        proc.tap(write, Ready.WRITE, queue="in", type="room")
        os.close(write)
        assert notes.wait(1) == [[Ready.WRITE, 1]]
        assert os.read(read, 2) == b"x"
        assert os.read(read, 2) == b""
        os.close(read)


def test_a_thousand_taps_cost_one_epoll(notes: Notes) -> None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limit[1]), limit[1]))
    proc = define()

    @proc.on_tap("line")
    def readable(tap: upcall.Tap) -> None:
        os.eventfd_read(tap.fileno())
        notes(tap.value)

    events = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(1000)]
    try:
        with running(proc):
            supervisor = inspect.snapshot("box").pid
            descriptors = Path(f"/proc/{supervisor}/fd")
            epolls = sum("eventpoll" in os.readlink(fd) for fd in descriptors.iterdir())
            taps = [proc.tap(fd, queue="in", type="line", value=i) for i, fd in enumerate(events)]
            assert sum("eventpoll" in os.readlink(fd) for fd in descriptors.iterdir()) == epolls
            for fd in events:
                os.eventfd_write(fd, 1)
            assert sorted(value for (value,) in notes.wait(1000)) == list(range(1000))
            for tap in taps:
                tap.close()
    finally:
        for fd in events:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_taps_survive_the_worker_that_has_made_them(notes: Notes) -> None:
    proc = echo(notes)

    @proc.on("accept")
    def accept(ev: Any) -> None:
        if ev.redelivered:
            return
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(bytes(ev.payload).decode())
            proc.tap(link, queue="in", type="line")
        kill(os.getpid())

    with running(proc), socket.socket(socket.AF_UNIX) as listener:
        path = str(folder() / "listener")
        listener.bind(path)
        listener.listen()
        proc.queue("in").send("accept", path.encode())
        ours = listener.accept()[0]
        os.unlink(path)
        with ours:
            ours.settimeout(20)
            ours.sendall(b"a!b")  # at ! another one dies, with the event in its hands
            assert received(ours, 2) == b"AB"
            assert [data for data, *_ in notes.wait(3)] == ["a", "!", "b"]
            ours.shutdown(socket.SHUT_WR)
            assert ours.recv(1) == b""


def test_taps_survive_the_supervisor_and_the_watchers_after_it(notes: Notes) -> None:
    """Whoever has a copy passes it to the next watcher: who has made the tap, and who has handled an event of it."""
    proc = echo(notes, vcores=3)
    ours, theirs = pair()
    proc.tap(theirs, queue="in", type="line")  # of the definition: all workers have it
    theirs.close()
    proc.start()
    ours.sendall(b"a")
    assert ours.recv(1) == b"A"
    bereave(proc)
    for data in (b"b", b"c"):
        watcher = watched_by_worker()
        ours.sendall(data)
        assert ours.recv(1) == data.upper()
        kill(watcher)
    ours.sendall(b"d")
    assert ours.recv(1) == b"D"
    again = echo(notes, vcores=3)
    ours2, theirs2 = pair()
    again.tap(theirs2, queue="in", type="line")  # the next definition's descriptor takes its place
    theirs2.close()
    proc.definition.sources.clear()
    with running(again), ours, ours2:
        ours2.sendall(b"e")
        assert ours2.recv(1) == b"E"


def test_taps_of_programs_with_many_files_survive_the_supervisor(tmp_path: Path) -> None:
    source = """
        import os, resource, signal, socket, upcall
        from upcall import inspect

        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        files = [os.eventfd(0) for _ in range(1100)]
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        proc = upcall.Proc("box", vcores=2)
        proc.queue("in")
        proc.tap(theirs, queue="in", type="line")

        @proc.on_tap("line")
        def line(tap):
            os.write(tap.fileno(), os.read(tap.fileno(), 1).upper())

        proc.start()
        try:
            ours.sendall(b"a")
            print(ours.recv(1), flush=True)
            pid = inspect.snapshot("box").pid
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            ours.sendall(b"b")
            print(ours.recv(1), flush=True)
        finally:
            proc.stop()
    """
    with program(tmp_path, source) as process:
        said = output(process)
    assert [line for line in said.splitlines() if line.startswith("b'")] == ["b'A'", "b'B'"], said


def test_bad_descriptors_are_refused(tmp_path: Path) -> None:
    proc = define()
    bad: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (987654, {}, OSError, "fd 987654: Bad file descriptor"),
        (-1, {}, ValueError, "fd -1: it is closed"),
        ("x", {}, TypeError, "must be a descriptor's number"),
        (True, {}, TypeError, "must be a descriptor's number"),
        (0, {"ready": 0}, ValueError, "must be Ready.READ"),
        (0, {"ready": Ready.HANGUP}, ValueError, "must be Ready.READ"),
        (0, {"value": 2**64}, OverflowError, "does not fit"),
    ]
    with running(proc), open(tmp_path / "file", "w") as file:
        for fd, options, error, says in [*bad, (file, {}, ValueError, "regular file")]:
            with pytest.raises(error, match=says):
                proc.tap(fd, **{"queue": "in", **options})
        gone = socket.socket()
        gone.close()
        with pytest.raises(ValueError, match="it is closed"):
            proc.tap(gone, queue="in")
        event = os.eventfd(0)
        with pytest.raises(ValueError, match="name the queue"):
            proc.tap(event)
        os.close(event)
        until(lambda: not inspect.snapshot("box").sources)


def test_a_handle_that_has_tapped_leaves_no_descriptor() -> None:
    def tap_once() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, running(define(1)) as proc:
            proc.tap(ours, Ready.READ, queue="in").close()

    tap_once()  # whatever is opened once and for all
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        tap_once()
    gc.collect()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before, "the threads to let go")


def test_an_async_handler_of_taps_is_refused() -> None:
    async def readable(tap: upcall.Tap) -> None:
        pass

    with pytest.raises(TypeError, match="is async: use"):
        define().on_tap()(readable)


def test_a_watcher_without_descriptors_says_so(notes: Notes) -> None:
    import resource

    with running(echo(notes)) as proc:
        supervisor = inspect.snapshot("box").pid
        assert supervisor
        used = len(os.listdir(f"/proc/{supervisor}/fd"))
        first, second = os.eventfd(0), os.eventfd(0)
        tap = proc.tap(first, queue="in")
        limit = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (used, limit[1]))
        with pytest.raises(upcall.UpcallError, match="raise ulimit -n"):
            proc.tap(second, queue="in")
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limit)
        assert [source.id for source in inspect.snapshot("box").sources] == [tap.id]
        os.close(first)
        os.close(second)


# ---- watches -------------------------------------------------------------------------------------------------------


def exits(notes: Notes, **options: Any) -> Proc:
    proc = define(**options)

    @proc.on("exit")
    def exited(ev: Any) -> None:
        notes(ev.arg4, ev.arg1 and os.waitstatus_to_exitcode(ev.arg2), ev.arg1)

    return proc


def test_the_end_of_a_child_is_an_event_with_its_status(notes: Notes) -> None:
    with running(exits(notes)) as proc:
        for i, code in enumerate(("raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)")):
            child = subprocess.Popen([sys.executable, "-c", f"input(); {code}"], stdin=subprocess.PIPE)
            assert child.stdin
            proc.watch(child.pid, queue="in", value=i)
            child.stdin.write(b"\n")
            child.stdin.close()
            notes.wait(i + 1)
            child.wait()
        assert notes.read() == [[0, 3, 1], [1, -9, 1]]


def test_the_end_of_a_stranger_is_an_event_without(notes: Notes) -> None:
    proc = exits(notes)

    @proc.on("look")
    def look(ev: Any) -> None:
        proc.watch(ev.arg3, queue="in", value=8)

    with running(proc):
        child = subprocess.Popen(["sleep", "1000"])
        proc.queue("in").send("look", arg3=child.pid)
        proc.drain()
        child.kill()
        assert notes.wait(1) == [[8, 0, 0]]
        child.wait()
        with pytest.raises(ProcessLookupError, match=f"pid {child.pid}: no such process"):
            proc.watch(child.pid, queue="in")
        for pid in (0, -1):
            with pytest.raises(ValueError, match="is no process's number"):
                proc.watch(pid, queue="in")
        with pytest.raises(TypeError, match="must be an int"):
            proc.watch("1", queue="in")  # type: ignore[arg-type]


def test_a_watch_for_which_there_was_no_descriptor_is_tried_again(notes: Notes, log: Path) -> None:
    import resource

    with running(exits(notes)) as proc:
        supervisor = inspect.snapshot("box").pid
        assert supervisor
        proc.watch(os.getpid(), queue="in").cancel()
        proc.drain()
        child = subprocess.Popen(["sleep", "1000"])
        used = len(os.listdir(f"/proc/{supervisor}/fd"))
        limit = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (used, limit[1]))
        proc.watch(child.pid, queue="in", value=5)
        until(lambda: f"cannot watch pid {child.pid}" in log.read_text())
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limit)
        child.kill()
        assert [value for value, *_ in notes.wait(1)] == [5]
        child.wait()


def test_a_watch_survives_the_supervisor(notes: Notes) -> None:
    """Also of a process that ends while nobody watches."""
    proc = exits(notes)
    proc.start()
    children = [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]
    for i, child in enumerate(children):
        proc.watch(child.pid, queue="in", value=i)
    assert proc.watch(os.getpid(), queue="in").cancel()
    children[0].kill()
    notes.wait(1)
    supervisor = inspect.snapshot("box").pid
    assert supervisor
    os.kill(supervisor, signal.SIGSTOP)
    children[1].kill()
    children[1].wait()
    bereave(proc)
    children[2].kill()
    found = notes.wait(3)
    assert sorted(value for value, *_ in found) == [0, 1, 2]
    for child in children:
        child.wait()
    until(lambda: not inspect.snapshot("box").sources)


# ---- calls ---------------------------------------------------------------------------------------------------------


def test_a_call_ends_with_its_result_on_the_same_vcore(notes: Notes) -> None:
    proc = define()

    @proc.on("compute")
    def compute(ev: Any) -> None:
        notes("begun", ev.vcore, proc.call(divmod, ev.arg3, ev.arg4, value=ev.arg3))

    @proc.on(EventType.SYSCALL)
    def done(ev: Any) -> None:
        try:
            notes(bytes(ev.payload).decode(), ev.vcore, ev.arg3, ev.arg4, proc.result(ev))
        except ZeroDivisionError as error:
            notes("failed", ev.vcore, ev.arg3, str(error))
        try:
            proc.result(ev)
        except ValueError as error:
            notes("twice", str(error))

    with running(proc):
        proc.queue("in").send("compute", arg3=17, arg4=5)
        (_, vcore, ident), done_, twice = notes.wait(3)
        assert done_ == ["divmod", vcore, ident, 17, [3, 2]]
        assert "has been taken" in twice[1]
        proc.queue("in").send("compute", arg3=17, arg4=0)
        assert notes.wait(6)[4][0] == "failed"
        with pytest.raises(RuntimeError, match="in the vcore's own thread"):
            proc.call(print)
        with pytest.raises(TypeError, match="must be callable"):
            proc.call(3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="None is not the end of a call"):
            proc.result(None)  # type: ignore[arg-type]
        until(lambda: not inspect.snapshot("box").sources)


def test_a_call_that_nobody_could_tell_of_is_refused(notes: Notes) -> None:
    """The helper thread that tells needs an attach slot. Without one it ended in silence, and a stop waited for ever."""
    proc = define()

    @proc.on("compute")
    def compute(ev: Any) -> None:
        try:
            proc.call(divmod, 7, 2)
        except upcall.SegmentError as error:
            notes(str(error))

    @proc.on(EventType.SYSCALL)
    def done(ev: Any) -> None:
        notes(proc.result(ev))

    with running(proc):
        queue = proc.queue("in")
        proc.drain()
        segment = open_segment("box")
        with contextlib.suppress(upcall.SegmentError):
            while True:
                segment.attach(const.ROLE_SENDER)
        queue.send("compute")
        assert "attach slots are in use" in notes.wait(1)[0][0]
        segment.close()
        queue.send("compute")
        assert notes.wait(2)[1] == [[3, 1]]


def dying_in_calls(notes: Notes, gate: Gate, **options: Any) -> Proc:
    proc = define(**options)

    def wait_for_gate(how: int) -> None:
        gate.wait()
        os._exit(how)

    @proc.on("call")
    def call(ev: Any) -> None:
        notes("begun", ev.vcore, proc.call(wait_for_gate, ev.arg1), os.getpid())

    @proc.on("segfault")
    def segfault(ev: Any) -> None:
        notes("begun", os.getpid())
        proc.call(ctypes.string_at, 0)

    @proc.on(EventType.SYSCALL)
    def done(ev: Any) -> None:
        try:
            notes("result", proc.result(ev))
        except upcall.WorkerDied as error:
            notes("died", ev.vcore, ev.arg3, str(error), error.call, error.pid, error.signal, error.exitcode)

    return proc


CALLED = "dying_in_calls.<locals>.wait_for_gate"


@pytest.mark.parametrize(("way", "said"), [
    ("kill", "signal 9 (SIGKILL)"), ("realtime", "signal 64 (SIGRTMAX)"), ("exit", "exit code 3"),
])  # fmt: skip
def test_a_call_whose_worker_dies_ends_with_worker_died(way: str, said: str, notes: Notes, gate: Gate) -> None:
    proc = dying_in_calls(notes, gate)
    with running(proc):
        proc.queue("in").send("call", arg1=3)
        ((_, vcore, ident, pid),) = notes.wait(1)
        until(lambda: inspect.snapshot("box").vcores[vcore].handled)  # else its event comes again, and with it a call
        if way == "exit":
            gate.open(1)
        else:
            os.kill(pid, 64 if way == "realtime" else 9)
        _, died = notes.wait(2)
        number = {"kill": 9, "realtime": 64, "exit": None}[way]
        assert died[:3] == ["died", vcore, ident]
        assert died[3].startswith(f"worker {pid} of 'box' died ({said}) while it called {CALLED}"[:-1])
        assert died[5:] == [pid, number, 3 if way == "exit" else None]
        until(lambda: not inspect.snapshot("box").sources)


def test_a_call_that_segfaults_says_so(notes: Notes, gate: Gate) -> None:
    proc = dying_in_calls(notes, gate)
    proc.queue("once", max_redeliveries=0)
    with running(proc):
        proc.queue("once").send("segfault")
        died = until(lambda: [note for note in notes.read() if note[0] == "died"])[0]
        begun = [note for note in notes.read() if note[0] == "begun"]
        assert died[4:] == ["string_at", begun[0][1], signal.SIGSEGV, None]
        assert "died (signal 11 (SIGSEGV)) while" in died[3]


def test_nobody_knows_how_a_worker_died_that_another_worker_watched(notes: Notes, gate: Gate) -> None:
    def with_queues() -> Proc:
        proc = dying_in_calls(notes, gate)
        for v in range(2):
            proc.queue(f"only{v}", flags=EventFlag.VCORE_PRIVATE | EventFlag.IPI, vcore=v)
        return proc

    bereave(with_queues().start())
    watcher = watched_by_worker()
    v, pid = next((v, pid) for v, pid in pids().items() if pid != watcher)
    with upcall.connect("box") as remote:
        remote.queue(f"only{v}").send("call")
        notes.wait(1)
        until(lambda: inspect.snapshot("box").vcores[v].handled)
        kill(pid)
        until(lambda: not inspect.snapshot("box").sources)  # its event is sent
    with running(with_queues()):
        _, died = notes.wait(2)
    assert died[3].startswith(f"worker {pid} of 'box' died (nobody knows how) while it called {CALLED}")
    assert died[5:] == [pid, None, None]


def test_all_calls_that_have_ended_when_a_worker_leaves_have_results(notes: Notes, gate: Gate) -> None:
    """Several that end at once, beside mail for the queue that is others' by then."""
    proc = define(vcores=1)
    all_done = [threading.Event() for _ in range(5)]

    @proc.on("call")
    def call(ev: Any) -> None:
        for done in all_done:
            proc.call(done.set)
        for done in all_done:
            done.wait()
        calls = proc.handle().calls_of(0)  # type: ignore[attr-defined]
        while calls.told.qsize() < calls.under_way:  # those that ended before the last was called are counted already
            os.sched_yield()
        os.kill(os.getpid(), signal.SIGTERM)

    @proc.on(EventType.SYSCALL)
    def done(ev: Any) -> None:
        notes(proc.result(ev))

    with running(proc):
        proc.queue("in").send("call")
        assert notes.wait(5) == [[None]] * 5


@pytest.mark.parametrize("host", ["process", "thread"])
def test_a_stop_at_once_does_not_wait_for_the_calls_that_a_drain_waits_for(host: Any, notes: Notes, gate: Gate) -> None:
    proc = define(vcores=1, host=host)
    proc.on("call")(lambda ev: (proc.call(gate.wait), notes("calls")))
    proc.on(EventType.SYSCALL)(lambda ev: None)
    with running(proc, "now"):
        proc.queue("in").send("call")
        notes.wait(1)
        with pytest.raises(TimeoutError):
            proc.stop("drain", timeout=0.1)
    gate.open()
    discard("box")


def test_a_worker_that_is_to_end_waits_for_its_calls(notes: Notes, gate: Gate) -> None:
    def wait_for_gate(i: int) -> int:
        gate.wait()
        return i

    proc = define()

    @proc.on("call")
    def call(ev: Any) -> None:
        for i in range(3):
            proc.call(wait_for_gate, i)
        notes("begun")

    @proc.on(EventType.SYSCALL)
    def done(ev: Any) -> None:
        notes(proc.result(ev))

    with running(proc):
        proc.queue("in").send("call")
        notes.wait(1)
        restart = forked(lambda: subprocess.run([sys.executable, "-m", "upcall.cli", "restart", "box"], check=True))
        until(lambda: all(pid is None or pid for pid in pids().values()))
        gate.open(3)
        assert ended(restart) == 0
        assert sorted(notes.read()[1:]) == [[0], [1], [2]]
        proc.queue("in").send("call")
        notes.wait(5)
        gate.open(3)
    assert sorted(notes.read()[5:]) == [[0], [1], [2]]


# ---- signals -------------------------------------------------------------------------------------------------------


def signalled(notes: Notes, *numbers: int, **options: Any) -> Proc:
    proc = define(**options)
    proc.signals(*numbers)

    @proc.on(EventType.POSIX_SIGNAL)
    def came(ev: Any) -> None:
        notes(ev.arg1, ev.queue)

    return proc


def test_a_signal_to_anybody_of_the_process_is_an_event(notes: Notes) -> None:
    with running(signalled(notes, signal.SIGHUP, signal.SIGUSR1)):
        supervisor = inspect.snapshot("box").pid
        assert supervisor
        for i, pid in enumerate([supervisor, *pids().values()]):
            os.kill(pid, signal.SIGHUP)
            assert notes.wait(i + 1)[i] == [signal.SIGHUP, "signals"]
        counts = {source.value: source.events for source in inspect.snapshot("box").sources}
        until(lambda: {s.value: s.events for s in inspect.snapshot("box").sources} == {1: 3, 10: 0}, str(counts))


def test_each_realtime_signal_is_an_event_and_one_follows_the_last_of_others(notes: Notes) -> None:
    first = signal.SIGRTMIN + 2
    with running(signalled(notes, first, signal.SIGUSR2)) as proc:
        supervisor = inspect.snapshot("box").pid
        assert supervisor
        targets = [supervisor, *pids().values()]
        for pid in targets:
            for _ in range(50):
                os.kill(pid, first)
                os.kill(pid, signal.SIGUSR2)
        for _ in range(20):
            proc.signal(signal.SIGUSR1)
        until(lambda: [number for number, _ in notes.read()].count(first) == 50 * len(targets))
        until(lambda: [number for number, _ in notes.read()].count(signal.SIGUSR1) == 20)
        assert signal.SIGUSR2 in [number for number, _ in notes.read()]


def test_sigterm_keeps_its_meaning_unless_it_is_asked_for(notes: Notes) -> None:
    with running(signalled(notes, signal.SIGTERM, signal.SIGINT)):
        supervisor = inspect.snapshot("box").pid
        assert supervisor
        before = pids()
        for i, pid in enumerate([supervisor, *before.values()]):
            os.kill(pid, signal.SIGTERM)
            assert notes.wait(i + 1)[i][0] == signal.SIGTERM
        os.kill(supervisor, signal.SIGINT)
        assert notes.wait(4)[3][0] == signal.SIGINT
        assert pids() == before
    assert len(notes.read()) == 4  # `stop` stops it


def test_a_signal_without_a_supervisor_is_an_event(notes: Notes) -> None:
    proc = signalled(notes, signal.SIGUSR1, signal.SIGTERM)
    proc.start()
    bereave(proc)
    watched_by_worker()
    for i, pid in enumerate(pids().values()):
        os.kill(pid, signal.SIGUSR1)

        def terminated(i: int = i, pid: int = pid) -> bool:
            os.kill(pid, signal.SIGTERM)  # again: the first may be one with that of the supervisor's death
            time.sleep(0.05)
            return [number for number, _ in notes.read()].count(signal.SIGTERM) > i

        until(terminated)
    until(lambda: [number for number, _ in notes.read()].count(signal.SIGUSR1) == 2)
    assert len(pids()) == 2


def test_a_child_of_a_handler_has_its_signals(notes: Notes) -> None:
    proc = signalled(notes, signal.SIGUSR1)

    @proc.on("fork")
    def fork(ev: Any) -> None:
        notes(ended(forked(lambda: os.kill(os.getpid(), signal.SIGUSR1))))

    with running(proc):
        proc.queue("in").send("fork")
        assert notes.wait(1) == [[-signal.SIGUSR1]]


@pytest.mark.parametrize(
    ("numbers", "options", "error", "says"),
    [
        ((), {}, ValueError, "without a number"),
        ((0,), {}, ValueError, "0 is not a signal's number"),
        ((65,), {}, ValueError, "65 is not a signal's number"),
        (("SIGHUP",), {}, ValueError, "'SIGHUP' is not a signal's number"),
        ((signal.SIGKILL,), {}, ValueError, "SIGKILL cannot be an event: nobody can catch it"),
        ((signal.SIGURG,), {}, ValueError, "upcall's own interrupt"),
        ((signal.SIGHUP,), {"queue": "bits"}, upcall.FlagError, "cannot say which signal"),
        ((signal.SIGHUP,), {"queue": "out"}, ValueError, "'out' is not defined"),
    ],
)
def test_bad_signals_are_refused(
    numbers: tuple[Any, ...], options: dict[str, Any], error: type[Exception], says: str
) -> None:
    proc = define()
    proc.queue("bits", flags=EventFlag.NOMSG | EventFlag.INDIR | EventFlag.FALLBACK)
    with pytest.raises(error, match=says):
        proc.signals(*numbers, **options)


THREADS = """
import os, signal, threading
import upcall

proc = upcall.Proc("box", vcores=2, host="thread")
proc.signals(signal.SIGHUP, signal.SIGRTMIN)

@proc.on(upcall.EventType.POSIX_SIGNAL)
def came(ev):
    child = os.fork()
    if child == 0:
        os._exit(signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    print(ev.arg1, threading.current_thread() is threading.main_thread(), os.waitpid(child, 0)[1], flush=True)

proc.alarm(after=0, type="ready", queue=proc.queue("in"))
proc.on("ready")(lambda ev: print("ready", flush=True))
proc.run()
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


def test_signals_of_threads_are_events_if_they_are_run_in_the_main_thread(tmp_path: Path) -> None:
    with program(tmp_path, THREADS) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        for number in (signal.SIGHUP, signal.SIGRTMIN, signal.SIGHUP):
            process.send_signal(number)
            assert process.stdout.readline() == f"{int(number)} False 0\n"
        process.terminate()
        assert output(process) == "set()\n"
        assert process.returncode == 0


def test_signals_that_threads_cannot_have_are_refused() -> None:
    proc = Proc("box", host="thread")
    for number in (signal.SIGTERM, signal.SIGINT):
        with pytest.raises(ValueError, match="cannot be an event with host='thread'"):
            proc.signals(number)
    proc.signals(signal.SIGHUP)
    with pytest.raises(ValueError, match=r"call run\(\) in the main thread, or use host='process'"):
        proc.start()


def test_signals_of_a_running_process_are_refused() -> None:
    with running(define()) as proc, pytest.raises(RuntimeError, match="runs already"):
        proc.signals(signal.SIGHUP)


# ---- all of them ---------------------------------------------------------------------------------------------------


SPAWNED = """
import os, signal, sys
import upcall

proc = upcall.Proc("box", vcores=2, start_method="spawn")
work = proc.queue("in")
proc.signals(signal.SIGUSR1, queue=work)
proc.alarm(after=0.01, queue=work)
if __name__ == "__main__":
    read, write = os.pipe()
    proc.tap(read, queue=work)


@proc.on_tap()
def readable(tap):
    print(os.read(tap.fileno(), 10), flush=True)


@proc.on(upcall.EventType.ALARM)
@proc.on(upcall.EventType.POSIX_SIGNAL)
def came(ev):
    print(ev.type, flush=True)


if __name__ == "__main__":
    with proc:
        os.write(write, b"x")
        for vcore in proc.stats()["vcores"][:2]:
            os.kill(vcore["pid"], signal.SIGUSR1)
        sys.stdin.read()
"""


def test_spawned_workers_have_sources(tmp_path: Path) -> None:
    (tmp_path / "spawned.py").write_text(SPAWNED)
    command = [sys.executable, str(tmp_path / "spawned.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        assert sorted(run.stdout.readline() for _ in range(4)) == [
            "ALARM\n", "POSIX_SIGNAL\n", "POSIX_SIGNAL\n", "b'x'\n"
        ]  # fmt: skip
        run.communicate("", timeout=20)
    assert run.returncode == 0


def test_threads_have_alarms_taps_and_calls(notes: Notes) -> None:
    proc = echo(notes, host="thread")

    @proc.on(EventType.ALARM)
    def rang(ev: Any) -> None:
        proc.call(divmod, 7, 2)

    @proc.on(EventType.SYSCALL)
    def done(ev: Any) -> None:
        notes(proc.result(ev))

    with running(proc):
        ours, theirs = pair()
        with ours, theirs:
            tap = proc.tap(theirs, queue="in", type="line")
            ours.sendall(b"a")
            assert ours.recv(1) == b"A"
            tap.close()
        proc.alarm(after=0.01, queue="in")
        assert notes.wait(2)[1] == [[3, 1]]


def test_ps_lists_sources() -> None:
    proc = define()
    proc.signals(signal.SIGHUP)
    read, write = os.pipe()
    with running(proc), open(read), open(write, "w"):
        proc.alarm(every=100, queue="in", value=6)
        proc.tap(read, queue="in")
        proc.watch(os.getpid(), queue="in")
        done = subprocess.run([sys.executable, "-m", "upcall.cli", "ps", "box"], capture_output=True, text=True)
        for words in ("sources", "alarm", "tap", "watch", "signal", "SIGHUP", "every 100 s"):
            assert words in done.stdout
        shown = proc.stats()["sources"]
        assert sorted(source["kind"] for source in shown) == ["alarm", "signal", "tap", "watch"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_bytes_in_the_table_hurt_who_attends_it(seed: int, notes: Notes, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(seed)
    proc = alarms_noted(notes)
    with running(proc):
        with upcall.connect("box") as remote:
            segment = remote.handle().segment
            first, size = segment.seg.sources, const.SOURCE_STRIDE
            for _ in range(4):
                for i in range(0, const.NR_SOURCES, 7):
                    record = bytearray(rng.choice([rng.randbytes(size), bytes(size)]))
                    state = rng.randrange(6) | rng.randrange(4) << 8 | rng.getrandbits(32) * rng.randrange(2) << 32
                    struct.pack_into("QI", record, 0, state, rng.randrange(7))
                    if rng.randrange(2):
                        struct.pack_into("II", record, const.SR_TYPE, rng.randrange(40), rng.randrange(4))
                    if rng.randrange(2):
                        struct.pack_into("QQ", record, const.SR_BASE, rng.getrandbits(40), rng.randrange(3))
                        struct.pack_into("Q", record, const.SR_PID, rng.randrange(40000))
                    segment.memory[first + i * size : first + (i + 1) * size] = bytes(record)
                upcall.Alarm(remote, 0).cancel()
                remote.alarm(after=0.02, queue="in", value=77)
                inspect.snapshot("box").to_json()
                time.sleep(0.03)
            segment.memory[first : first + const.NR_SOURCES * size] = bytes(const.NR_SOURCES * size)
            remote.alarm(after=0, queue="in", value=99)
            until(lambda: [note for note in notes.read() if note[2] == 99])
        assert "Traceback" not in (err := capfd.readouterr().err), err
