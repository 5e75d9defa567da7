"""Whoever waits for the end of a process that is stopped (SIGSTOP) is told which one it is and what to do, and waits for
nobody who is dead: also where a child that was stopped while it was made has a copy of what the dead one held."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import upcall
from procs import (
    LONG_S,
    Gate,
    Later,
    Notes,
    bereave,
    command,
    ended,
    forked,
    go_on,
    is_stopped,
    kill_workers,
    pids,
    running,
    stopped_child,
    until,
)
from test_take_over import more
from upcall import NameInUse, Proc, UpcallError, inspect
from upcall.host.control import Control
from upcall.host.segment import folder
from upcall.host.sources import Sources
from upcall.host.stopping import ask, stop

pytestmark = pytest.mark.usefixtures("nobody_left")


def define(notes: Notes, gate: Gate | None = None, vcores: int = 2, **options: Any) -> Proc:
    proc = Proc("box", vcores=vcores, **options)
    proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(os.getpid(), ev.arg1, ev.redeliveries)
        if gate is not None and not ev.redeliveries:
            gate.wait()

    return proc


def halt(pid: int) -> int:
    os.kill(pid, signal.SIGSTOP)
    until(lambda: is_stopped(pid), "its stop")
    return pid


def way_out(pid: int) -> str:
    return f"is stopped: kill -CONT {pid} lets it go on, kill -KILL {pid} ends it"


Lines = list[dict[str, Any]]


def names(lines: Lines, vcore: int, pid: int) -> bool:
    return {"vcore": vcore, "pid": pid, "says": way_out(pid)} in lines


# A stop


@pytest.mark.parametrize("where", ["idle", "fork", "open"])
def test_a_stop_names_a_worker_that_is_stopped(where: str, late: Path, notes: Notes, log: Path) -> None:
    """Idle, or while it starts."""
    proc = define(notes).start()
    late.write_text(where)
    if where == "idle":
        worker = halt(pids()[1])
    else:
        os.kill(pids()[1], signal.SIGKILL)
        worker = stopped_child(proc)
    lines: Lines = []
    first = Later(lambda: stop("box", None, lines.append))
    until(lambda: names(lines, 1, worker), "its name")
    assert f"box/vcore 1: is to end, and pid {worker} {way_out(worker)}" in log.read_text()

    def late_answer() -> bool:
        try:
            stop("box", None, lines.append, timeout=1)
        except TimeoutError as error:
            return str(error).endswith(f"it goes on with it; vcore 1 (pid {worker}) {way_out(worker)}")
        return False

    until(late_answer, "its name past a timeout")
    go_on(worker)
    assert first.result() == {"removed": True, "left": ""}
    proc.stop(timeout=LONG_S)


def test_a_stop_without_a_supervisor_names_a_worker_that_is_stopped(notes: Notes) -> None:
    bereave(define(notes).start())
    worker = halt(pids()[1])
    done = command("stop", "box", "--timeout", "0.2")
    assert done.returncode == 1
    assert done.stderr.endswith(f"vcore 1 (pid {worker}) has not ended; pid {worker} {way_out(worker)}\n")
    lines: Lines = []
    again = Later(lambda: stop("box", None, lines.append))
    until(lambda: names(lines, 1, worker), "its name")
    go_on(worker)
    assert again.result() == {"removed": True, "left": ""}


def test_a_stopped_worker_is_killed_in_a_stop_if_a_hang_is_a_death(notes: Notes, log: Path) -> None:
    proc = define(notes, on_hang="kill").start()
    halt(pids()[1])
    proc.stop(timeout=LONG_S)
    assert "box/vcore 1: is to end, and is stopped: killed (on_hang='kill')" in log.read_text()
    assert not (folder() / "box").exists()


def test_a_stop_beside_another_one_waits_along(notes: Notes, gate: Gate) -> None:
    """There is no supervisor: the first one attends the process, and listens to nobody."""
    bereave(define(notes, gate).start())
    with upcall.connect("box") as remote:
        remote.queue("orders").send("order", arg1=1)
    notes.wait(1)
    first = forked(lambda: stop("box", None, lambda line: None))
    until(lambda: len(pids()) == 1, "its begin")
    with pytest.raises(NameInUse, match=rf"is just being stopped \(by pid {first}\): start it when that is done"):
        define(notes).start()
    lines: Lines = []
    second = Later(lambda: stop("box", None, lines.append))
    until(lambda: lines == [{"pid": first, "says": "stops it already: waiting for that"}], "a word of the second one")
    done = command("stop", "box", "--timeout", "0.2")
    assert (done.returncode, done.stderr) == (1, f"Error: process 'box' still stops: pid {first} is about it\n")
    done = command("restart", "box")
    assert (done.returncode, done.stderr) == (1, f"Error: pid {first} stops 'box' just now\n")
    halt(first)
    done = command("stop", "box")
    assert (done.returncode, done.stderr) == (1, f"Error: pid {first}, which attends 'box', {way_out(first)}\n")
    with pytest.raises(UpcallError, match=f"pid {first}, which attends 'box', is stopped"):
        second.result()
    go_on(first)
    third = Later(lambda: stop("box", None, lines.append))
    until(lambda: len(lines) == 2, "a word of the third one")
    gate.open()
    assert ended(first) == 0
    assert third.result() == {"removed": True, "left": ""}


# A start that takes workers over


@pytest.mark.parametrize("on_hang", ["wait", "kill"])
def test_a_start_with_other_tables_does_not_wait_for_a_stopped_worker_without_a_word(
    on_hang: Any, notes: Notes, gate: Gate, log: Path
) -> None:
    """The program decides whether it is waited for; its event is handled again if not."""
    bereave(define(notes, gate, vcores=1).start())
    with upcall.connect("box") as remote:
        remote.queue("orders").send("order", arg1=1)
    notes.wait(1)
    worker = halt(pids()[0])
    supervisor = forked(more(notes, 1, on_hang=on_hang).run)
    if on_hang == "wait":
        until(lambda: f"box/vcore 0: is to end, and pid {worker} {way_out(worker)}" in log.read_text(), "its name")
        gate.open()
        go_on(worker)
    until(lambda: pids().get(0) not in (None, worker), "the next worker")
    with upcall.connect("box") as remote:
        remote.queue("others").send("other", arg1=2)
    os.kill(supervisor, signal.SIGTERM)
    assert ended(supervisor) == 0
    numbers = [note[1] for note in notes.read()]
    assert numbers == ([1, 2] if on_hang == "wait" else [1, 1, 2])


def test_threads_that_take_over_from_a_stopped_worker_name_it(notes: Notes, log: Path) -> None:
    bereave(define(notes, vcores=1).start())
    worker = halt(pids()[0])
    start = Later(define(notes, vcores=1, host="thread").start)
    until(lambda: f"box/vcore 0: is to end, and pid {worker} {way_out(worker)}" in log.read_text(), "its name")
    go_on(worker)
    start.result().stop()
    assert not (folder() / "box").exists()


# Whoever asks a supervisor


def test_who_asks_a_stopped_supervisor_is_told(notes: Notes) -> None:
    with running(define(notes)) as proc:
        supervisor = halt(proc._running.pid)
        lines: Lines = []
        restart = Later(lambda: ask("box", {"do": "restart", "kill_after": None}, lines.append))
        until(lambda: lines, "a word")
        assert lines == [{"pid": supervisor, "says": f"supervises it, and {way_out(supervisor)}"}]
        go_on(supervisor)
        assert restart.result() == {"restarted": 2}


def test_who_asked_learns_of_a_supervisors_death_though_a_stopped_child_has_its_connection(
    late: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Control.close_in_child

    def close_later(control: Control) -> None:
        if late.read_text() == "control":
            os.kill(os.getpid(), signal.SIGSTOP)
        close(control)

    monkeypatch.setattr("upcall.host.supervisor.Control.close_in_child", close_later)
    proc = define(notes).start()
    late.write_text("control")
    restart = Later(lambda: ask("box", {"do": "restart", "kill_after": None}, lambda line: None))
    worker = stopped_child(proc)
    bereave(proc)
    with pytest.raises(UpcallError, match="the supervisor of 'box' ended before it had finished"):
        restart.result()
    late.write_text("")
    with running(define(notes)):
        go_on(worker)
        ended(worker)
        assert len(pids()) == 2


def test_a_tap_is_passed_on_by_who_has_it_though_a_stopped_child_has_the_dead_ones_connection(
    late: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Sources.close_in_child

    def close_later(sources: Sources) -> None:
        if late.read_text() == "sources":
            os.kill(os.getpid(), signal.SIGSTOP)
        close(sources)

    monkeypatch.setattr("upcall.host.supervisor.Sources.close_in_child", close_later)
    read, write = os.pipe()
    proc = define(notes)
    proc.tap(read, queue="orders", type="order")  # of the definition: all workers have it
    os.close(read)
    proc.start()
    late.write_text("sources")
    os.kill(pids()[1], signal.SIGKILL)
    worker = stopped_child(proc)
    bereave(proc)
    os.write(write, b"x")
    notes.wait(1)
    os.close(write)
    os.kill(worker, signal.SIGKILL)
    ended(worker)


# Children that were stopped right after the fork


def bare_fork() -> int:
    """A child as it is right after the system call: no hook has run in it. It stops there."""
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    pid: int = ctypes.CDLL(None).syscall(clone, signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    return pid


@pytest.fixture
def halfborn(late: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> int:
    """The pid of a worker that has stopped before it could let go of what its supervisor held, which is dead by now."""
    fork = os.fork
    monkeypatch.setattr("os.fork", lambda: bare_fork() if late.read_text() == "clone" else fork())
    proc = define(notes).start()
    late.write_text("clone")
    os.kill(pids()[1], signal.SIGKILL)
    worker = stopped_child(proc)
    bereave(proc)
    late.write_text("")
    return worker


def killed(worker: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGKILL


def test_a_start_is_not_kept_out_by_a_worker_that_was_stopped_while_it_was_made(
    halfborn: int, notes: Notes, log: Path
) -> None:
    with running(define(notes)) as proc:
        assert killed(halfborn)
        assert f"box: killed pid {halfborn}, a child of pid " in log.read_text()
        assert sorted(pids()) == [0, 1]
        proc.queue("orders").send("order", arg1=1)
    assert [note[1] for note in notes.read()] == [1]


def test_a_stop_does_not_wait_for_a_worker_that_was_stopped_while_it_was_made(halfborn: int) -> None:
    assert stop("box", None, lambda line: None) == {"removed": True, "left": ""}
    assert killed(halfborn)


def test_a_clean_up_is_not_held_up_by_a_worker_that_was_stopped_while_it_was_made(halfborn: int) -> None:
    kill_workers("box")
    assert [(one.removed, one.why) for one in inspect.clean()] == [(True, "nothing waited")]
    assert killed(halfborn)


def test_a_supervisor_that_is_stopped_while_it_makes_a_worker_keeps_its_place(late: Path, notes: Notes) -> None:
    """It has its lock as its child has, and stands still: the one who made a child is told from the child."""
    with running(define(notes)) as proc:
        supervisor = halt(proc._running.pid)
        with pytest.raises(NameInUse, match=rf"runs already \(pid {supervisor}\)"):
            define(notes).start()
        assert [one.why for one in inspect.clean()] == [f"attended by pid {supervisor}"]
        go_on(supervisor)


def test_a_vcore_of_a_dead_worker_is_hosted_though_a_child_of_its_handler_was_stopped_while_it_was_made(
    notes: Notes,
) -> None:
    proc = define(notes, vcores=1)

    @proc.on("fork")
    def handler(ev: upcall.Event) -> None:
        if ev.redeliveries == 0:
            notes(bare_fork())
            while True:
                signal.pause()
        notes(ev.redeliveries)

    proc.start()
    proc.queue("orders").send("fork")
    ((child,),) = notes.wait(1)
    until(lambda: is_stopped(child), "its stop")
    worker = pids()[0]
    bereave(proc)
    os.kill(worker, signal.SIGKILL)
    with running(proc):
        assert killed(child)
    assert notes.read()[1:] == [[1]]
