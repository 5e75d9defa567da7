"""The supervisor's death: its workers carry on, one of them watches, and the next start takes them over."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import upcall
from procs import (
    LONG_S,
    Gate,
    Notes,
    Words,
    abandon,
    bereave,
    ended,
    forked,
    left,
    log_to,
    pids,
    program,
    running,
    until,
)
from procs import vcore_info as vcores
from upcall import Proc, inspect
from upcall.host.segment import folder
from upcall.host.worker import worker_process


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The log of this process and of all that it forks."""
    with log_to(tmp_path / "log") as path:
        yield path


pytestmark = pytest.mark.usefixtures("nobody_left")


def define(handler: Callable[[Any], object], vcores: int = 3, **options: Any) -> Proc:
    proc = Proc("box", vcores=vcores, **options)
    proc.queue("orders")
    proc.on("order")(handler)
    return proc


def send(*numbers: int) -> None:
    """Events from somebody else."""
    with upcall.connect("box") as remote:
        for number in numbers:
            remote.queue("orders").send("order", arg1=number)


def drained() -> None:
    """Waits until nothing waits."""
    until(lambda: left("box") == 0, "the handling of all events")


def watcher(among: Any = None) -> int:
    """The pid of the worker that watches, one of `among`."""

    def found() -> int:
        pid = inspect.snapshot("box").watcher or 0
        return pid if pid and (among is None or pid in among) else 0

    return int(until(found, "a watcher"))


def threads(pid: int) -> list[str]:
    return os.listdir(f"/proc/{pid}/task")


def test_a_worker_killed_by_a_signal_without_a_name_is_replaced_by_its_supervisor(notes: Notes) -> None:
    with running(define(lambda ev: notes(ev.arg1))):
        before = pids()
        os.kill(before[1], signal.SIGRTMIN + 6)
        until(lambda: pids().get(1, before[1]) != before[1], "the next worker")
        assert inspect.snapshot("box").pid is not None
        send(*range(5))
        drained()
        assert sorted(notes.read()) == [[i] for i in range(5)]


# Workers carry on


def test_workers_carry_on_without_their_supervisor(notes: Notes) -> None:
    proc = define(lambda ev: notes(ev.arg1)).start()
    before = pids()
    bereave(proc)
    send(*range(20))
    drained()
    assert sorted(notes.read()) == [[i] for i in range(20)]
    assert pids() == before
    found = inspect.snapshot("box")
    assert (found.attended, found.pid) == (False, None)
    assert watcher() in before.values()


def test_workers_have_no_helper_before_their_supervisor_is_dead() -> None:
    proc = define(print).start()
    workers = pids()
    assert [len(threads(pid)) for pid in workers.values()] == [1, 1, 1]
    bereave(proc)
    until(lambda: all(len(threads(pid)) == 2 for pid in workers.values()), "a helper in each")


def test_nobody_runs_while_there_is_nothing_to_do() -> None:
    proc = define(print).start()
    workers = pids()
    bereave(proc)
    watcher(workers.values())

    def switches() -> dict[str, str]:
        tasks = [f"/proc/{pid}/task/{tid}" for pid in workers.values() for tid in threads(pid)]
        return {
            task: re.findall(r"voluntary_ctxt_switches:\s*(\d+)", Path(task, "status").read_text())[0] for task in tasks
        }

    def quiet() -> bool:
        before = switches()
        time.sleep(0.7)
        return len(before) == 6 and switches() == before

    until(quiet, "all threads asleep for good")


def test_the_watching_worker_settles_one_that_is_killed(notes: Notes, gate: Gate, log: Path) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(os.getpid(), ev.arg1, ev.redeliveries)
        if ev.redeliveries == 0:
            gate.wait()

    proc = define(handler).start()
    workers = pids()
    bereave(proc)
    watching = watcher(workers.values())
    # Each worker has one event in hand: whichever is killed holds one.
    send(0, 1, 2)
    notes.wait(3)
    victim, number, _ = next(note for note in notes.read() if note[0] != watching)
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in pids().values(), "its end")
    gate.open()
    drained()
    again = [note for note in notes.read() if note[2]]
    assert [(note[1], note[2]) for note in again] == [(number, 1)]
    assert "1 event(s) were in its hands" in log.read_text()


def test_the_role_passes_on_until_the_last_worker(notes: Notes) -> None:
    proc = define(lambda ev: notes(os.getpid(), ev.arg1), vcores=4).start()
    workers = set(pids().values())
    bereave(proc)
    for i in range(3):
        victim = watcher(workers)
        workers.remove(victim)
        os.kill(victim, signal.SIGKILL)
        until(lambda: set(pids().values()) == workers, "the end of the watcher, seen by the next")
        send(i)
        drained()
    assert watcher() in workers
    assert [note[1] for note in notes.read()] == [0, 1, 2]
    assert [v for v in vcores("box").values() if v.state == "NOHOST" and v.alive] == []


def test_a_worker_that_is_told_to_end_hands_the_role_on(notes: Notes) -> None:
    proc = define(lambda ev: notes(ev.arg1)).start()
    workers = set(pids().values())
    bereave(proc)
    first = watcher(workers)
    os.kill(first, signal.SIGTERM)
    until(lambda: first not in pids().values(), "its end")
    assert watcher(workers - {first})
    send(7)
    drained()
    assert notes.read() == [[7]]


def test_a_worker_that_misses_its_supervisors_death_by_a_hair_carries_on_and_watches(notes: Notes) -> None:
    proc = define(lambda ev: notes(ev.arg1), vcores=1)
    abandon(proc)
    gone = forked(lambda: None)
    assert ended(gone) == 0
    # As a worker whose supervisor died between the fork and the asking for its signal.
    worker = forked(lambda: worker_process(proc, "box", 0, gone))
    assert watcher({worker}) == worker
    send(1)
    until(lambda: notes.read() == [[1]], "the event")
    os.kill(worker, signal.SIGTERM)
    assert ended(worker) == 0


def test_a_worker_that_is_to_stop_and_misses_its_supervisors_death_stops() -> None:
    proc = define(print, vcores=1, on_supervisor_death="stop")
    abandon(proc)
    gone = forked(lambda: None)
    assert ended(gone) == 0
    assert ended(forked(lambda: worker_process(proc, "box", 0, gone))) == 0


def test_killing_supervisor_and_workers_at_random_moments_loses_nothing() -> None:
    total = 400
    counts = Words(total)

    def handler(ev: upcall.Event) -> None:
        counts[ev.arg1] = 1

    for i in range(8):
        proc = define(handler, vcores=4)
        proc.start()
        sender = forked(lambda i=i: send(*range(i * 50, i * 50 + 50)))
        if i % 2:
            os.kill(pids()[i % 4], signal.SIGKILL)
        bereave(proc)
        assert ended(sender) == 0
    last = define(handler, vcores=4)
    with running(last):
        assert last.drain(LONG_S) == []
    assert [i for i in range(total) if not counts[i]] == []
    counts.close()


# The next start takes them over


def test_a_start_takes_running_workers_over(notes: Notes, log: Path) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(os.getpid(), ev.arg1)

    bereave(define(handler).start())
    before = pids()
    send(1)
    with running(define(handler)) as proc:
        assert pids() == before
        assert inspect.snapshot("box").pid == proc._running.pid
        send(2)
        drained()
        assert {pid for pid, _ in notes.read()} <= set(before.values())
        # It watches them as its own: who dies is settled and replaced.
        os.kill(before[1], signal.SIGKILL)
        until(lambda: pids().get(1) not in (None, before[1]), "a new worker")
        assert {v: pid for v, pid in pids().items() if v != 1} == {v: pid for v, pid in before.items() if v != 1}
        send(3)
    assert sorted(number for _, number in notes.read()) == [1, 2, 3]
    assert not (folder() / "box").exists()
    assert "took over its running workers: vcore 0 (pid" in log.read_text()


def test_a_start_takes_over_what_lives_and_replaces_what_does_not(notes: Notes) -> None:
    bereave(define(lambda ev: notes(ev.arg1), vcores=4).start())
    before = pids()
    for v in (0, 2):
        os.kill(before[v], signal.SIGKILL)
    until(lambda: sorted(pids()) == [1, 3], "their end")
    with running(define(lambda ev: notes(ev.arg1), vcores=4)):
        after = pids()
        assert sorted(after) == [0, 1, 2, 3]
        assert (after[1], after[3]) == (before[1], before[3])
        send(5)
    assert notes.read() == [[5]]


def test_a_worker_that_watched_steps_down_and_watches_again(notes: Notes) -> None:
    bereave(define(lambda ev: notes(ev.arg1)).start())
    before = pids()
    first = watcher(before.values())
    proc = define(lambda ev: notes(ev.arg1)).start()
    assert inspect.snapshot("box").watcher is None
    os.kill(pids()[2], signal.SIGKILL)
    until(lambda: pids().get(2) not in (None, before[2]), "a new worker")
    bereave(proc)
    # The one that stood by, or the next one if that was it.
    assert watcher(pids().values()) in (first, *pids().values())
    # The new worker, not the first supervisor's child, is watched too, and stands by as the others do.
    until(lambda: all(len(threads(pid)) == 2 for pid in pids().values()), "a helper in each")
    os.kill(pids()[2], signal.SIGKILL)
    until(lambda: sorted(pids()) == [0, 1], "its end")
    until(lambda: vcores("box")[2].state == "NOHOST", "its settling")
    send(9)
    drained()
    assert notes.read() == [[9]]


def test_workers_with_other_handlers_are_replaced_one_by_one(notes: Notes) -> None:
    bereave(define(lambda ev: notes("old", ev.arg1)).start())
    before = pids()
    send(1)
    drained()
    with running(define(lambda ev: notes("new", ev.arg1 + 1))):
        until(lambda: len(pids()) == 3 and not set(pids().values()) & set(before.values()), "other workers")
        send(2)
    assert notes.read() == [["old", 1], ["new", 3]]


def test_workers_with_other_tables_end_before_the_new_ones_are_written(notes: Notes, gate: Gate) -> None:
    def old(ev: upcall.Event) -> None:
        gate.wait()
        notes("old", ev.arg1)

    bereave(define(old, vcores=2).start())
    before = pids()
    send(1)
    until(lambda: inspect.dump("box")["queues"][0]["depth"] == 1, "the event in hand")

    def start() -> None:
        proc = define(lambda ev: notes("new", ev.type, ev.arg1), vcores=2)
        proc.on("refund")(lambda ev: notes("new", ev.type, ev.arg1))
        proc.run()

    supervisor = forked(start)
    until(lambda: inspect.snapshot("box").pid == supervisor, "its start")
    until(lambda: len(pids()) == 1, "the end of the idle one")
    # One of them has an event in hand still: nobody can send what it does not know.
    with upcall.connect("box") as remote:
        remote.queue("orders").send("order", arg1=2)
        with pytest.raises(upcall.NoSuchType):
            remote.queue("orders").send("refund")
        gate.open()
        until(lambda: not set(pids().values()) & set(before.values()) and len(pids()) == 2, "other workers")
        remote.queue("orders").send("refund", arg1=3)
    drained()
    os.kill(supervisor, signal.SIGTERM)
    assert ended(supervisor) == 0
    assert notes.read()[0] == ["old", 1]
    assert sorted(notes.read()[1:]) == [["new", "order", 2], ["new", "refund", 3]]


@pytest.mark.parametrize(("before", "after"), [(2, 5), (5, 2), (1, 3), (3, 1)])
def test_another_number_of_vcores_is_a_scale_of_what_is_taken_over(before: int, after: int, notes: Notes) -> None:
    bereave(define(lambda ev: notes(ev.arg1), vcores=before).start())
    first = pids()
    send(*range(10))
    with running(define(lambda ev: notes(ev.arg1), vcores=after)):
        until(lambda: sorted(pids()) == list(range(after)), "so many workers")
        until(lambda: len(vcores("box")) == after, "so many vcores")
        kept = min(before, after)
        assert [pids()[v] for v in range(kept)] == [first[v] for v in range(kept)]
        send(*range(10, 20))
    assert sorted(notes.read()) == [[i] for i in range(20)]


def test_a_supervisor_that_dies_while_it_replaces_workers_is_followed_by_another(notes: Notes, gate: Gate) -> None:
    def old(ev: upcall.Event) -> None:
        gate.wait()
        notes("old", ev.arg1)

    bereave(define(old).start())
    before = pids()
    send(1)
    until(lambda: inspect.dump("box")["queues"][0]["depth"] == 1, "the event in hand")
    second = define(lambda ev: notes("new", ev.arg1)).start()
    bereave(second)
    gate.open()
    with running(define(lambda ev: notes("new", ev.arg1))):
        until(lambda: len(pids()) == 3 and not set(pids().values()) & set(before.values()), "other workers")
        send(2)
    assert notes.read() == [["old", 1], ["new", 2]]


def test_a_queue_that_changes_its_mailbox_leaves_no_event_behind_in_the_former_one(notes: Notes) -> None:
    abandon(define(print))
    send(1, 2)
    other = Proc("box", vcores=3)
    other.queue("orders", mailbox="vcore", flags=upcall.EventFlag.IPI)
    other.on("order")(print)
    with pytest.raises(upcall.SegmentError, match="'orders' of 'box' has another mailbox now, and events wait in its"):
        other.start()
    assert left("box") == 2
    with running(define(lambda ev: notes(ev.arg1))):
        pass
    assert sorted(notes.read()) == [[1], [2]]


SPAWN = """
    import os, sys
    import upcall

    proc = upcall.Proc("box", vcores=2, start_method="spawn")
    proc.queue("orders")

    @proc.on("order")
    def order(ev):
        with open(sys.argv[1], "a") as file:
            file.write(f"{ev.arg1}\\n")

    if __name__ == "__main__":
        proc.run()
"""


def test_spawned_workers_are_taken_over_too(tmp_path: Path) -> None:
    handled = tmp_path / "handled"
    with program(tmp_path, SPAWN, handled) as first:
        until(lambda: inspect_or_nothing() and len(pids()) == 2, "its start")
        before = pids()
        os.kill(first.pid, signal.SIGKILL)
        with program(tmp_path, SPAWN, handled) as second:
            until(lambda: inspect.snapshot("box").pid == second.pid, "the next")
            assert pids() == before  # nobody was replaced: they run the same definition
            send(1)
            os.kill(before[1], signal.SIGKILL)
            until(lambda: pids().get(1) not in (None, before[1]), "a new worker")
            send(2)
            drained()
            second.send_signal(signal.SIGTERM)
            second.wait(LONG_S)
    assert sorted(handled.read_text().split()) == ["1", "2"]


def inspect_or_nothing() -> Any:
    try:
        return inspect.snapshot("box")
    except upcall.NoSuchProcess:
        return None


def test_threads_take_over_from_worker_processes(notes: Notes) -> None:
    bereave(define(lambda ev: notes("process", ev.arg1)).start())
    send(1)
    drained()
    proc = define(lambda ev: notes("thread", ev.arg1), host="thread").start()
    assert set(pids().values()) == {os.getpid()}
    send(2)
    proc.stop()
    assert notes.read() == [["process", 1], ["thread", 2]]
    assert not (folder() / "box").exists()


def test_a_host_that_a_dying_supervisor_had_started_is_taken_over(notes: Notes, log: Path) -> None:
    """It comes online while the next supervisor starts a worker for the same vcore."""
    with running(define(lambda ev: notes(ev.arg1), vcores=2)) as proc:
        os.kill(proc._running.pid, signal.SIGSTOP)
        victim = pids()[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: 0 not in pids(), "its end")
        stranger = forked(lambda: worker_process(proc, "box", 0, os.getppid()))
        until(lambda: pids().get(0) == stranger, "its start")
        os.kill(proc._running.pid, signal.SIGCONT)
        until(lambda: "took over its running worker, pid" in log.read_text(), "the taking over")
        assert pids()[0] == stranger
        send(1)
    assert ended(stranger) == 0
    assert notes.read() == [[1]]


# Stopping without a supervisor


def test_stop_after_the_supervisors_death_stops_the_workers(notes: Notes) -> None:
    proc = define(lambda ev: notes(ev.arg1)).start()
    os.kill(proc._running.pid, signal.SIGKILL)
    send(*range(10))
    proc.stop(timeout=LONG_S)
    assert sorted(notes.read()) == [[i] for i in range(10)]
    assert not (folder() / "box").exists()


def test_stop_now_after_the_supervisors_death_leaves_what_waits(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(ev.arg1)
        gate.wait()

    proc = define(handler, vcores=1).start()
    os.kill(proc._running.pid, signal.SIGKILL)
    send(1, 2)
    notes.wait(1)
    with pytest.raises(TimeoutError, match=r"still stops after 0\.2 s"):
        proc.stop("now", timeout=0.2)
    gate.open()
    proc.stop("now", timeout=LONG_S)
    assert notes.read() == [[1]]
    assert left("box") == 1


def test_stop_leaves_a_process_alone_that_somebody_else_has_taken_over(notes: Notes, log: Path) -> None:
    first = define(lambda ev: notes(ev.arg1)).start()
    os.kill(first._running.pid, signal.SIGKILL)
    until(lambda: not inspect.snapshot("box").attended, "its end")
    with running(define(lambda ev: notes(ev.arg1))):
        before = pids()
        first.stop(timeout=LONG_S)
        assert pids() == before
        assert "somebody else attends it now: not stopped" in log.read_text()
        send(1)
    assert notes.read() == [[1]]


def test_a_supervisor_killed_while_it_stops_leaves_nobody_behind(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        gate.wait()
        notes(ev.arg1)

    proc = define(handler, vcores=2).start()
    send(1, 2)
    until(lambda: inspect.dump("box")["queues"][0]["depth"] == 2, "the events in hand")
    with pytest.raises(TimeoutError):
        proc.stop(timeout=0.1)
    os.kill(proc._running.pid, signal.SIGKILL)
    gate.open()
    proc.stop(timeout=LONG_S)
    assert sorted(notes.read()) == [[1], [2]]
    assert not (folder() / "box").exists()


def test_user_code_that_exits_ends_its_worker_with_its_own_code_and_no_traceback(
    notes: Notes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes("handled"))

    @proc.main
    def main() -> None:
        notes("main")
        if len(notes.read()) == 1:
            raise SystemExit(3)
        if len(notes.read()) == 2:
            raise SystemExit("enough")

    with log_to(tmp_path / "log") as log, running(proc):
        notes.wait(3)
        queue.send("order")
        assert proc.drain(LONG_S) == []
    assert "worker ended (exit code 3)" in log.read_text()
    assert "worker ended (exit code 1)" in log.read_text()
    assert capfd.readouterr().err.splitlines().count("enough") == 1
    assert "Traceback" not in log.read_text()
