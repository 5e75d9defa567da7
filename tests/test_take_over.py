"""The next start of a process whose supervisor and workers are dead, stopped or late: with real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import upcall
import upcall.host.threads
from procs import (
    LONG_S,
    Gate,
    Later,
    Notes,
    bereave,
    ended,
    go_on,
    is_stopped,
    kill_workers,
    left,
    pids,
    running,
    stopped_child,
    until,
)
from procs import vcore_info as vcores
from upcall import EventFlag, Proc, inspect
from upcall.host.owner import finish, open_for_owner, publish
from upcall.host.segment import folder, open_segment
from upcall.host.standby import Lookout
from upcall.host.supervisor import Control
from upcall.kern import const

pytestmark = pytest.mark.usefixtures("nobody_left")


# What a dead worker had in hand


def holding(notes: Notes, gate: Gate, count: int) -> Proc:
    """Handlers that hold what they get until the gate opens, but for what is delivered again and private mail."""
    proc = Proc("box", vcores=count)
    proc.queue("orders")
    proc.queue("ticks", flags=EventFlag.IPI | EventFlag.INDIR | EventFlag.FALLBACK | EventFlag.NOMSG)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes("order", ev.vcore, ev.arg1, ev.redeliveries)
        if not ev.redeliveries:
            gate.wait()

    @proc.on("tick")
    def tick(ev: upcall.Event) -> None:
        notes("tick", ev.vcore)
        gate.wait()

    @proc.on("mail")
    def mail(ev: upcall.Event) -> None:
        notes("mail", ev.vcore, ev.arg1, ev.redeliveries)

    return proc


def lose_worker(proc: Proc, victim: int, how: str) -> None:
    """The death of a worker while its supervisor is dead, or stopped and killed later."""
    supervisor = proc._running.pid
    if how == "dead":
        bereave(proc)
    else:
        os.kill(supervisor, signal.SIGSTOP)
        until(lambda: is_stopped(supervisor), "its stop")
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in pids().values(), "its death")
    if how == "stopped":
        bereave(proc)


@pytest.mark.parametrize("how", ["dead", "stopped"])
@pytest.mark.parametrize("what", ["event", "bit"])
def test_the_next_host_has_what_a_worker_that_died_without_a_supervisor_had_in_hand(
    what: str, how: str, notes: Notes, gate: Gate
) -> None:
    proc = holding(notes, gate, 1).start()
    if what == "event":
        proc.queue("orders").send("order", arg1=1)
    else:
        proc.queue("ticks").send("tick")
    notes.wait(1)
    proc.vcore(0).send("mail", arg1=2, private=True)
    lose_worker(proc, pids()[0], how)
    assert left("box") == 2
    gate.open()
    with running(holding(notes, gate, 1)) as after:
        assert after.drain(LONG_S) == []
        assert vcores("box")[0].redelivered == (what == "event")  # nobody knows of a bit how often it was sent
    again = ["order", 0, 1, 1] if what == "event" else ["tick", 0]
    assert sorted(notes.read()[1:]) == sorted([again, ["mail", 0, 2, 0]])


@pytest.mark.parametrize("how", ["dead", "stopped"])
def test_a_vcore_that_is_hosted_beside_one_that_was_taken_over_has_its_mail(how: str, notes: Notes, gate: Gate) -> None:
    proc = holding(notes, gate, 2).start()
    for number in (1, 2):
        proc.queue("orders").send("order", arg1=number)
    notes.wait(2)
    victim, number = next((vcore, number) for _, vcore, number, _ in notes.read() if vcore == 0)
    proc.vcore(0).send("mail", arg1=3, private=True)
    before = pids()
    lose_worker(proc, before[victim], how)
    with running(holding(notes, gate, 2)) as after:
        until(lambda: len(pids()) == 2, "the next host")
        assert pids()[1] == before[1]
        gate.open()
        assert after.drain(LONG_S) == []
    assert sorted(notes.read()[2:], key=str) == sorted(
        [["order", next(v for k, v, n, r in notes.read() if r), number, 1], ["mail", 0, 3, 0]], key=str
    )


def test_clean_keeps_a_bit_that_a_dead_worker_had_in_hand(notes: Notes, gate: Gate) -> None:
    proc = holding(notes, gate, 1).start()
    proc.queue("ticks").send("tick")
    notes.wait(1)
    until(lambda: left("box") == 1, "the bit in hand")
    lose_worker(proc, pids()[0], "dead")
    (kept,) = inspect.clean()
    assert (kept.removed, kept.why[:13]) == (False, "1 events wait")
    (gone,) = inspect.clean(discard=True)
    assert (gone.removed, gone.lost) == (True, 1)


# A supervisor that is stopped


def define(notes: Notes, count: int, **options: Any) -> Proc:
    proc = Proc("box", vcores=count, **options)
    proc.queue("orders")
    proc.on("order")(lambda ev: notes(os.getpid(), ev.arg1))
    return proc


def test_a_stopped_supervisor_keeps_its_name_and_goes_on_where_it_was(notes: Notes, gate: Gate) -> None:
    proc = define(notes, 2).start()
    supervisor = proc._running.pid
    os.kill(supervisor, signal.SIGSTOP)
    until(lambda: is_stopped(supervisor), "its stop")
    before = pids()
    with pytest.raises(upcall.NameInUse, match=rf"runs already \(pid {supervisor}\)"):
        define(notes, 2).start()
    (kept,) = inspect.clean(discard=True)
    assert (kept.removed, kept.why) == (False, f"attended by pid {supervisor}")
    os.kill(before[0], signal.SIGKILL)
    until(lambda: 0 not in pids(), "its death")
    proc.queue("orders").send("order", arg1=1)
    go_on(supervisor)
    until(lambda: len(pids()) == 2, "the next host")
    assert pids()[1] == before[1]
    proc.stop(timeout=LONG_S)
    assert [number for _, number in notes.read()] == [1]
    assert not (folder() / "box").exists()


# Workers that were starting when their supervisor died


def more(notes: Notes, count: int, **options: Any) -> Proc:
    """Another definition, with an event type that the first does not know."""
    proc = define(notes, count, **options)
    proc.queue("others")
    proc.on("other")(lambda ev: notes(os.getpid(), ev.arg1))
    return proc


def late_worker(proc: Proc, vcore: int, late: Path, where: str) -> int:
    """A worker for a vcore, stopped while it starts, whose supervisor is killed then."""
    late.write_text(where)
    os.kill(pids()[vcore], signal.SIGKILL)
    found = stopped_child(proc)
    bereave(proc)
    late.write_text("")
    return found


@pytest.mark.parametrize("where", ["fork", "open"])
@pytest.mark.parametrize("count", [3, 1])
def test_a_late_worker_does_not_stay_beside_the_workers_of_the_next_supervisor(
    count: int, where: str, late: Path, notes: Notes
) -> None:
    worker = late_worker(define(notes, 3).start(), 2, late, where)
    with running(define(notes, count)) as proc:
        until(lambda: sorted(pids()) == list(range(count)), "so many workers")
        before = pids()
        go_on(worker)
        ended(worker)
        assert pids() == before
        proc.queue("orders").send("order", arg1=1)
        assert proc.drain(LONG_S) == []
    assert [number for _, number in notes.read()] == [1]
    assert not (folder() / "box").exists()


@pytest.mark.parametrize("where", ["fork", "open"])
def test_a_late_worker_of_another_definition_handles_nothing(where: str, late: Path, notes: Notes) -> None:
    """It would drop what it does not know; no worker of its vcore's runs meanwhile."""
    worker = late_worker(define(notes, 1).start(), 0, late, where)
    second = more(notes, 1).start()
    late.write_text("fork")
    os.kill(pids()[0], signal.SIGKILL)
    other = stopped_child(second)
    second.queue("others").send("other", arg1=1)
    go_on(worker)
    ended(worker)
    assert left("box") == 1
    late.write_text("")
    go_on(other)
    assert second.drain(LONG_S) == []
    second.stop(timeout=LONG_S)
    assert notes.read() == [[other, 1]]


def test_a_late_worker_of_a_supervisor_before_the_last_one_handles_nothing(late: Path, notes: Notes) -> None:
    """Nobody attends the process, and its tables are another definition's."""
    worker = late_worker(define(notes, 1).start(), 0, late, "open")
    second = more(notes, 1).start()
    second.queue("others").send("other", arg1=1)
    assert second.drain(LONG_S) == []
    bereave(second)
    kill_workers("box")
    with upcall.connect("box") as remote:
        remote.queue("others").send("other", arg1=2)
    go_on(worker)
    ended(worker)
    assert left("box") == 1
    with running(more(notes, 1)):
        pass
    assert [number for _, number in notes.read()] == [1, 2]


def test_a_late_worker_carries_on_if_nobody_attends_the_process(late: Path, notes: Notes) -> None:
    worker = late_worker(define(notes, 1).start(), 0, late, "open")
    go_on(worker)
    with upcall.connect("box") as remote:
        remote.queue("orders").send("order", arg1=1)
    until(lambda: left("box") == 0, "the event")
    assert notes.read() == [[worker, 1]]


def test_a_late_worker_does_not_host_what_was_cleaned_up(late: Path, notes: Notes) -> None:
    """It had opened the file, and nobody can see that. What is beside the file now is another one's."""
    worker = late_worker(define(notes, 1).start(), 0, late, "open")
    assert [one.removed for one in inspect.clean()] == [True]
    with running(define(notes, 1)) as proc:
        go_on(worker)
        ended(worker)
        proc.queue("orders").send("order", arg1=1)
        assert proc.drain(LONG_S) == []
    assert [number for _, number in notes.read()] == [1]


# Workers that end between the looks of the next start


@pytest.mark.parametrize("host", ["process", "thread"])
def test_a_start_that_sees_the_last_worker_of_another_definition_end_has_its_own_tables(
    host: Any, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bereave(define(notes, 3).start())

    def before(*arguments: Any) -> Any:
        kill_workers("box")
        return first(*arguments)

    first = Control if host == "process" else upcall.host.threads.end_workers
    where = "supervisor.Control" if host == "process" else "threads.end_workers"
    monkeypatch.setattr(f"upcall.host.{where}", before)
    with running(more(notes, 1, host=host)) as proc:
        assert [v.state for v in vcores("box").values() if v.id > 0] == []
        proc.queue("others").send("other", arg1=1)
        assert proc.drain(LONG_S) == []
    assert [number for _, number in notes.read()] == [1]


def test_a_worker_that_watches_does_not_sleep_over_a_supervisor_that_comes_while_it_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proc = Proc("box", vcores=1)
    owned = open_for_owner(proc)
    supervisor = owned.supervisor
    assert supervisor is not None
    owned.put_u64(supervisor.procinfo + const.PI_SUPERVISOR, 0)
    find = Lookout._find

    def find_just_before_it_comes(lookout: Lookout, first: bool) -> None:
        find(lookout, first)
        if not owned.u64(supervisor.procinfo + const.PI_SUPERVISOR):
            publish(owned, supervisor)

    monkeypatch.setattr(Lookout, "_find", find_just_before_it_comes)
    segment = open_segment("box")
    lookout = Lookout(segment, segment.attach(const.ROLE_WATCHER), proc.definition)
    pidfd = Later(lookout.until_attended).result()
    os.close(pidfd)
    segment.close()
    assert finish(owned, supervisor)
    owned.close()
