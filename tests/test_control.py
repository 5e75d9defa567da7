"""A running process is stopped, restarted and scaled: through its supervisor's socket, or without a supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import upcall
from procs import (
    LONG_S,
    Gate,
    Later,
    Notes,
    Words,
    abandon,
    bereave,
    command,
    ended,
    forked,
    left,
    pids,
    running,
    until,
)
from procs import vcore_info as vcores
from upcall import EventFlag, Proc, SegmentError, UpcallError, inspect
from upcall.front import port
from upcall.host.control import CLIENTS_MAX, LINE_MAX
from upcall.host.segment import folder
from upcall.host.stopping import ask, stop
from upcall.host.supervisor import Supervisor, Worker
from upcall.host.worker import VCoreHost, worker_process
from upcall.kern import const
from upcall.kern.layout import map_at

pytestmark = pytest.mark.usefixtures("nobody_left")


def define(handler: Callable[[Any], object], vcores: int = 3, **options: Any) -> Proc:
    proc = Proc("box", vcores=vcores, **options)
    proc.queue("orders")
    proc.on("order")(handler)
    return proc


def quiet(line: dict[str, Any]) -> None:
    """Progress that nobody reads."""


# Restart


def test_a_restart_replaces_every_worker_and_loses_and_repeats_nothing() -> None:
    total = 4000
    counts = Words(3 * total)

    def handler(ev: upcall.Event) -> None:
        counts[ev.vcore * total + ev.arg1] += 1

    with running(define(handler)) as proc:
        before = pids()

        def send() -> None:
            with upcall.connect("box") as remote:
                for i in range(total):
                    remote.queue("orders").send("order", arg1=i)

        sender = forked(send)
        restarts = 0
        while os.waitid(os.P_PID, sender, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            assert proc.restart() == 3
            restarts += 1
        assert ended(sender) == 0
        assert proc.restart() == 3
        assert restarts
        assert not set(pids().values()) & set(before.values())
        assert proc.drain(LONG_S) == []
        assert [v.restarts for v in vcores("box").values()] == [0, 0, 0]  # nobody died
    handled = [sum(counts[v * total + i] for v in range(3)) for i in range(total)]
    assert [(i, times) for i, times in enumerate(handled) if times != 1] == []
    counts.close()


def test_a_worker_with_an_event_in_hand_ends_after_it(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        notes("begin", ev.vcore)
        gate.wait()
        notes("end", ev.redelivered)

    lines: list[dict[str, Any]] = []
    with running(define(handler, vcores=2)) as proc:
        before = pids()
        proc.queue("orders").send("order")
        ((_, busy),) = notes.wait(1)
        restart = Later(lambda: ask("box", {"do": "restart", "kill_after": None}, lines.append))
        until(lambda: any(line["vcore"] == busy for line in lines), "its turn")
        assert pids()[busy] == before[busy]
        gate.open()
        assert restart.result() == {"restarted": 2}
        assert not set(pids().values()) & set(before.values())
    assert notes.read()[1:] == [["end", False]]
    assert [(line["vcore"], line["says"]) for line in lines] == [
        (0, "ends after what is in hand"),
        (0, "runs anew"),
        (1, "ends after what is in hand"),
        (1, "runs anew"),
    ]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_that_does_not_end_is_killed_if_that_is_wanted(
    stopped: bool, notes: Notes, gate: Gate, log: Path
) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(os.getpid(), ev.redeliveries)
        if not ev.redeliveries:
            gate.wait()

    with running(define(handler, vcores=1)) as proc:
        proc.queue("orders").send("order")
        ((busy, _),) = notes.wait(1)
        if stopped:
            os.kill(busy, signal.SIGSTOP)
        assert proc.restart(kill_after=0.1) == 1
        assert busy not in pids().values()
    assert [note[1] for note in notes.read()] == [0, 1]
    assert "has not ended when asked: killed" in log.read_text()


def test_a_restart_ends_with_the_first_new_worker_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"

    def start(*arguments: Any) -> int:
        return 7 if broken.exists() else worker_process(*arguments)

    monkeypatch.setattr("upcall.host.supervisor.worker_process", start)
    with running(define(print)) as proc:
        before = pids()
        broken.touch()
        with pytest.raises(
            UpcallError, match=r"vcore 0: its new worker ended at once \(exit code 7\); the others were"
        ):
            proc.restart()
        assert (pids()[1], pids()[2]) == (before[1], before[2])
        broken.unlink()
        assert proc.restart() == 3


def test_a_supervisor_killed_during_a_restart_is_told_to_who_asked(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        notes("begin")
        gate.wait()
        notes("end")

    lines: list[dict[str, Any]] = []
    proc = define(handler).start()
    before = pids()
    proc.queue("orders").send("order")
    notes.wait(1)
    restart = Later(lambda: ask("box", {"do": "restart", "kill_after": None}, lines.append))
    until(lambda: lines, "its begin")
    bereave(proc)
    with pytest.raises(UpcallError, match=r"the supervisor of 'box' ended before it had finished"):
        restart.result()
    gate.open()
    until(lambda: left("box") == 0, "the handling")
    with running(define(handler)):
        assert sorted(pids()) == [0, 1, 2]
        assert set(pids().values()) & set(before.values())
    assert notes.read() == [["begin"], ["end"]]


def test_a_worker_runs_only_when_everybody_sees_it() -> None:
    """Between its name and its vcore's word `upcall ps` shows nobody: a start, a restart or a scale was over too soon."""
    with running(define(print, vcores=1)) as proc:
        segment = proc.handle().segment
        as_supervisor: Any = SimpleNamespace(segment=segment, seg=segment.seg)
        worker = Worker(0, pid=pids()[0])
        until(lambda: vcores("box")[0].state == "OFFLINE", "its sleep")
        assert Supervisor.is_online(as_supervisor, worker)
        at = map_at(segment.seg, 0)
        word = segment.u64(at)
        segment.put_u64(at, word & ~15 | const.VC_NOHOST)
        assert not pids()
        assert not Supervisor.is_online(as_supervisor, worker)
        segment.put_u64(at, word)


# Scale


def test_scaling_up_and_down_loses_and_repeats_nothing() -> None:
    total = 5000
    counts = Words(6 * total)

    def handler(ev: upcall.Event) -> None:
        counts[ev.vcore * total + ev.arg1] += 1

    with running(define(handler, vcores=1)) as proc:

        def send() -> None:
            with upcall.connect("box") as remote:
                for i in range(total):
                    remote.queue("orders").send("order", arg1=i)

        sender = forked(send)
        for count in (4, 1, 6, 2, 1, 3):
            proc.scale(count)
            assert sorted(pids()) == list(range(count))
            found = inspect.dump("box")["procinfo"]
            assert (found["num_vcores"], found["cores"]) == (count, count)
        assert ended(sender) == 0
        assert proc.drain(LONG_S) == []
    handled = [sum(counts[v * total + i] for v in range(6)) for i in range(total)]
    assert [(i, times) for i, times in enumerate(handled) if times != 1] == []
    counts.close()


def test_a_single_core_process_becomes_a_many_core_one_and_back(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(ev.vcore)
        gate.wait()

    with running(define(handler, vcores=1)) as proc, upcall.connect("box") as remote:
        orders = remote.queue("orders")
        proc.scale(3)
        for _ in range(3):
            orders.send("order")
        assert sorted(vcore for (vcore,) in notes.wait(3)) == [0, 1, 2]  # all three at once
        gate.open(3)
        proc.drain(LONG_S)
        proc.scale(1)
        for _ in range(2):
            orders.send("order")
        notes.wait(4)
        gate.open()
    assert notes.read()[3:] == [[0], [0]]


def test_scaling_down_refuses_while_private_mail_waits_and_names_the_vcore(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(ev.vcore, ev.arg1)
        gate.wait()

    with running(define(handler)) as proc:
        proc.vcore(2).send("order", arg1=1, private=True)
        notes.wait(1)
        proc.vcore(2).send("order", arg1=2, private=True)
        before = pids()
        with pytest.raises(SegmentError, match=r"private mail waits for vcore 2 of 'box': .*--keep"):
            proc.scale(2)
        assert pids() == before
        done = command("scale", "box", "1")
        assert done.returncode == 1
        assert done.stderr.startswith("Error: private mail waits for vcore 2 of 'box'")
        gate.open()
        assert proc.drain(LONG_S) == []
        proc.scale(2)
    assert notes.read() == [[2, 1], [2, 2]]


def test_scaling_down_keeps_private_mail_if_that_is_wanted(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(ev.vcore, ev.arg1)
        gate.wait()

    with running(define(handler)) as proc:
        for i in (1, 2):
            proc.vcore(2).send("order", arg1=i, private=True)
        notes.wait(1)
        scale = Later(lambda: proc.scale(1, keep=True))
        until(lambda: sorted(pids()) == [0, 2], "the end of the idle one")
        gate.open()
        scale.result()
        assert sorted(pids()) == [0]
        assert vcores("box")[2].private == 1
        assert proc.drain(LONG_S) == [2]
        with pytest.raises(upcall.VCoreIdError):
            proc.vcore(2)
        assert notes.read() == [[2, 1]]
        proc.scale(3)
        assert proc.drain(LONG_S) == []
    assert notes.read() == [[2, 1], [2, 2]]


@pytest.mark.parametrize("how", ["leaves", "dies"])
def test_a_drain_is_told_when_a_vcore_goes_whose_private_mail_stays(
    how: str, notes: Notes, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    leave = VCoreHost.leave

    def handler(ev: upcall.Event) -> None:
        notes(ev.vcore, ev.arg1)
        gate.wait()

    def leave_later(host: VCoreHost) -> None:
        if host.vcoreid == 2:
            notes("leaves")
            gate.wait()
            if how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
        leave(host)

    def wait_word(seg: Any, at: int, value: int, timeout_ns: int) -> None:
        seen.append(value)
        port.wait_word(seg, at, value, timeout_ns)

    monkeypatch.setattr(VCoreHost, "leave", leave_later)
    monkeypatch.setattr("upcall.host.drain.port", SimpleNamespace(add_word=port.add_word, wait_word=wait_word))
    with running(define(handler)) as proc:
        for i in (1, 2):
            proc.vcore(2).send("order", arg1=i, private=True)
        notes.wait(1)
        drain = Later(proc.drain)
        scale = Later(lambda: proc.scale(1, keep=True))
        until(lambda: sorted(pids()) == [0, 2], "the end of the idle one")
        gate.open(1)
        notes.wait(2)
        segment = proc.handle().segment
        until(lambda: seen[-1:] == [segment.u32(segment.seg.procinfo + const.PI_DRAIN_SEQ)], "the sleep")
        gate.open()
        assert drain.result() == [2]
        scale.result()
        proc.scale(3)
        assert proc.drain(LONG_S) == []
        assert notes.read() == [[2, 1], ["leaves"], [2, 2]]


def test_private_mail_that_comes_while_a_vcore_goes_brings_it_back(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(ev.vcore, ev.arg1)
        gate.wait()

    with running(define(handler, preempt_after_ms=60_000)) as proc:
        proc.vcore(2).send("order", arg1=1)
        notes.wait(1)
        scale = Later(lambda: proc.scale(1))
        until(lambda: sorted(pids()) == [0, 2], "the end of the idle one")
        proc.vcore(2).send("order", arg1=2, private=True)
        gate.open()
        with pytest.raises(SegmentError, match="private mail waits for vcore 2"):
            scale.result()
        until(lambda: sorted(pids()) == [0, 1, 2], "all of them")
        assert proc.drain(LONG_S) == []
        assert inspect.dump("box")["procinfo"]["num_vcores"] == 3
    assert notes.read() == [[2, 1], [2, 2]]


@pytest.mark.parametrize(
    "options", [{"flags": EventFlag.IPI | EventFlag.VCORE_PRIVATE}, {"mailbox": "vcore", "flags": EventFlag.IPI}]
)
def test_scaling_down_refuses_what_a_queue_sends_to(options: dict[str, Any]) -> None:
    proc = define(print)
    proc.queue("mine", vcore=2, **options)
    with running(proc):
        with pytest.raises(SegmentError, match=r"queue 'mine' of 'box' sends to a vcore that would go"):
            proc.scale(2)
        assert sorted(pids()) == [0, 1, 2]


def test_scaling_beyond_the_segments_room_names_it_and_the_way_out() -> None:
    with running(define(print)) as proc:
        with pytest.raises(
            SegmentError, match=r"vcores=17: the segment of 'box' has room for 16 .* start it with vcores=17"
        ):
            proc.scale(17)
        proc.scale(16)
        assert len(pids()) == 16


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (1025, ValueError), (True, TypeError), (1.5, TypeError)])
def test_a_bad_number_of_vcores_is_refused(count: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="vcores="):
        define(print).scale(count)


def test_scale_and_restart_are_for_what_runs_here() -> None:
    for use in (lambda proc: proc.scale(2), lambda proc: proc.restart()):
        with pytest.raises(RuntimeError, match="does not run here"):
            use(define(print))


def test_a_new_command_takes_the_place_of_one_that_waits(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(ev.vcore)
        gate.wait()

    with running(define(handler, preempt_after_ms=60_000)) as proc:  # however slowly it wakes, it is vcore 2 that waits
        proc.vcore(2).send("order")
        notes.wait(1)
        first = Later(lambda: proc.scale(1))
        until(lambda: sorted(pids()) == [0, 2], "its begin")
        second = Later(lambda: proc.scale(4))
        with pytest.raises(UpcallError, match="not finished: another command came meanwhile"):
            first.result()
        gate.open()
        second.result()
        until(lambda: sorted(pids()) == [0, 1, 2, 3], "so many")


@pytest.mark.parametrize("command", ["scale up", "scale down"])
def test_workers_of_another_definition_are_replaced_though_a_command_comes_meanwhile(
    command: str, notes: Notes, gate: Gate
) -> None:
    """It took the place of their replacement, and those whose turn had not come stayed as they were."""

    def old(ev: upcall.Event) -> None:
        notes("old")
        gate.wait()

    bereave(define(old).start())
    before = pids()
    with upcall.connect("box") as remote:
        remote.vcore(0).send("order", private=True)
    notes.wait(1)
    with running(define(lambda ev: notes("new", ev.vcore))) as proc:
        assert [pids()[v] for v in range(3)] == [before[v] for v in range(3)]  # the first one's turn does not end
        count = 4 if command == "scale up" else 2
        proc.scale(count)
        gate.open()
        until(lambda: len(pids()) == count and not set(pids().values()) & set(before.values()), "other workers")
        for v in range(count):
            proc.vcore(v).send("order", private=True)
        notes.wait(
            1 + count
        )  # a worker that just starts may be told to stop before it has looked: its own mail waits then
    assert sorted(notes.read()[1:]) == [["new", v] for v in range(count)]


# Who asks


@pytest.fixture
def link() -> Iterator[Callable[[], socket.socket]]:
    """Connections to the supervisor of `box`."""
    made: list[socket.socket] = []

    def connect() -> socket.socket:
        made.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        made[-1].connect(str(folder() / "box" / "ctl"))
        made[-1].settimeout(LONG_S)
        return made[-1]

    yield connect
    for one in made:
        one.close()


Link = Callable[[], socket.socket]


def answer(link: socket.socket) -> dict[str, Any]:
    """The last line that comes before the end."""
    lines = link.makefile("rb").read().splitlines()
    found: dict[str, Any] = json.loads(lines[-1])
    return found


@pytest.mark.parametrize(
    "junk",
    [
        b"\n",
        b"\xff\xfe\0\n",
        b"[]\n",
        b"null\n",
        b'{"do": "explode"}\n',
        b'{"do": "stop", "stop": 5}\n',
        b'{"do": "scale", "vcores": "3", "keep": false}\n',
        b'{"do": "scale", "vcores": true, "keep": false}\n',
        b'{"do": "scale", "vcores": 0, "keep": false}\n',
        b'{"do": "scale", "vcores": 3}\n',
        b'{"do": "restart", "kill_after": -1}\n',
        b'{"do": "restart", "kill_after": NaN}\n',
        b'{"do": "restart", "kill_after": Infinity}\n',
        b'{"do": "restart", "kill_after": true}\n',
        b'{"do": "restart"}\n',
        b"[" * 4000 + b"\n",
        b"x" * (LINE_MAX + 1),
    ],
)
def test_junk_gets_an_error_and_changes_nothing(junk: bytes, link: Link) -> None:
    with running(define(print)):
        before = pids()
        one = link()
        one.sendall(junk)
        found = answer(one)
        assert found["kind"] == "ValueError"
        assert pids() == before


def test_those_who_say_nothing_harm_nobody(link: Link) -> None:
    with running(define(print)) as proc:
        silent = [link() for _ in range(2 * CLIENTS_MAX)]
        half = link()
        half.sendall(b'{"do": "resta')
        assert proc.restart() == 3
        assert silent[0].recv(1) == b""  # the oldest had to go


def test_one_that_is_gone_gets_what_it_asked_for(link: Link, gate: Gate, notes: Notes) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(ev.vcore)
        gate.wait()

    with running(define(handler, preempt_after_ms=60_000)) as proc:
        before = pids()
        proc.vcore(0).send("order")
        notes.wait(1)
        one = link()
        one.sendall(b'{"do": "restart", "kill_after": null}\n')
        assert b"ends after what is in hand" in one.recv(4096)
        one.close()
        gate.open()
        until(lambda: len(pids()) == 3 and not set(pids().values()) & set(before.values()), "other workers")


def test_one_that_reads_nothing_is_dropped(link: Link) -> None:
    with running(define(print)) as proc:
        one = link()
        one.shutdown(socket.SHUT_RD)
        one.sendall(b'{"do": "restart", "kill_after": null}\n')
        assert proc.restart() == 3


def test_the_socket_belongs_to_its_user_and_goes_with_its_supervisor() -> None:
    proc = define(print).start()
    path = folder() / "box" / "ctl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    bereave(proc)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, pytest.raises(ConnectionRefusedError):  # no worker holds it open
        one.connect(str(path))
    with running(define(print)) as proc:
        assert proc.restart() == 3
    assert not path.exists()


def test_a_folder_whose_name_is_longer_than_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPCALL_DIR", str(folder() / ("x" * 200)))
    with running(define(print)) as proc:
        assert proc.restart() == 3
    os.rmdir(os.environ["UPCALL_DIR"])


def test_threads_are_neither_restarted_nor_scaled() -> None:
    proc = define(print, host="thread").start()
    try:
        with pytest.raises(UpcallError, match=rf"vcores of 'box' are threads of pid {os.getpid()}, without a"):
            proc.scale(2)
        for arguments in (("restart", "box"), ("scale", "box", "2"), ("stop", "box")):
            done = command(*arguments)
            assert (done.returncode, done.stdout) == (1, "")
            assert "are threads of pid" in done.stderr
    finally:
        proc.stop()


def test_without_a_supervisor_the_way_out_is_named() -> None:
    bereave(define(print).start())
    done = command("restart", "box")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: nobody supervises 'box': start it again (upcall run), which takes over the workers that live, or stop it\n"
    )


# The commands


def test_the_commands_say_what_happens() -> None:
    with running(define(print, vcores=2)):
        done = command("restart", "box")
        assert (done.returncode, done.stdout) == (0, "box: 2 workers replaced\n")
        assert [line.split(" ")[0:2] for line in done.stderr.splitlines()] == [["vcore", v] for v in "0011"]
        done = command("restart", "box", "--json", "--kill-after", "5")
        assert json.loads(done.stdout) == {"restarted": 2}
        done = command("scale", "box", "3")
        assert (done.returncode, done.stdout) == (0, "box: 3 vcores (before: 2)\n")
        assert done.stderr == f"vcore 2 (pid {pids()[2]}) runs\n"
        done = command("scale", "box", "1", "--json")
        assert json.loads(done.stdout) == {"vcores": 1, "before": 3}


@pytest.mark.parametrize("arguments", [("stop",), ("restart",), ("scale", "2")])
def test_a_process_that_is_not_there(arguments: tuple[str, ...]) -> None:
    done = command(arguments[0], "nobody", *arguments[1:])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: no process 'nobody'")


def test_stop_by_command(notes: Notes) -> None:
    proc = define(lambda ev: notes(ev.arg1)).start()
    for i in range(5):
        proc.queue("orders").send("order", arg1=i)
    done = command("stop", "box")
    assert (done.returncode, done.stdout) == (0, "box stopped\n")
    assert sorted(done.stderr.splitlines()) == [f"vcore {v} ended" for v in range(3)]
    assert not (folder() / "box").exists()
    proc.stop(timeout=LONG_S)  # it is told that all is over
    assert sorted(notes.read()) == [[i] for i in range(5)]


def test_stop_now_by_command_leaves_what_waits(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(ev.arg1)
        gate.wait()

    proc = define(handler, vcores=1).start()
    for i in (1, 2, 3):
        proc.queue("orders").send("order", arg1=i)
    notes.wait(1)
    done = command("stop", "box", "--now", "--timeout", "0.3")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: process 'box' has not finished in time: it goes on with it\n"
    gate.open()
    done = command("stop", "box", "--now", "--json")
    if done.returncode == 0 and json.loads(done.stdout)["left"]:
        assert json.loads(done.stdout) == {"removed": False, "left": "events waiting in 1 mailbox(es)"}
    proc.stop(timeout=LONG_S)
    assert notes.read() == [[1]]
    assert left("box") == 2


def test_stop_without_a_supervisor(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        notes(ev.arg1)
        gate.wait()

    proc = define(handler, vcores=2).start()
    bereave(proc)
    with upcall.connect("box") as remote:
        for i in range(4):
            remote.queue("orders").send("order", arg1=i)
    notes.wait(2)
    done = command("stop", "box", "--timeout", "0.3")
    assert done.returncode == 1
    assert "Error: process 'box' still stops: vcore 0 (pid" in done.stderr
    gate.open()
    done = command("stop", "box")
    assert (done.returncode, done.stdout) == (0, "box stopped\n")
    assert sorted(notes.read()) == [[i] for i in range(4)]
    assert not (folder() / "box").exists()


def test_stop_of_what_no_worker_is_left_of(notes: Notes) -> None:
    abandon(define(lambda ev: notes(ev.arg1)))
    with upcall.connect("box") as remote:
        remote.queue("orders").send("order", arg1=1)
    assert stop("box", None, quiet) == {"removed": False, "left": "events waiting in 1 mailbox(es)"}
    with running(define(lambda ev: notes(ev.arg1))):
        pass
    assert notes.read() == [[1]]
    abandon(define(print))
    assert stop("box", None, quiet) == {"removed": True, "left": ""}


def test_two_that_stop_it_at_once_are_both_told() -> None:
    proc = define(print).start()
    both = [Later(lambda: stop("box", None, quiet)) for _ in range(2)]
    assert [one.result()["removed"] for one in both] == [True, True]
    proc.stop(timeout=LONG_S)


# Workers that die at their start


def test_a_worker_that_dies_at_its_start_again_and_again_is_reported_and_the_rest_goes_on(
    notes: Notes, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"

    def start(proc: Any, name: str, vcoreid: int, parent: int) -> int:
        return 3 if vcoreid == 0 and broken.exists() else worker_process(proc, name, vcoreid, parent)

    monkeypatch.setattr("upcall.host.supervisor.worker_process", start)
    with running(define(lambda ev: notes(ev.vcore), vcores=2)) as proc:
        broken.touch()
        os.kill(pids()[0], signal.SIGKILL)
        until(lambda: vcores("box")[0].state == "FAILING", "the report")
        assert vcores("box")[0].fails >= 5
        assert "FAILING" in command("ps", "box").stdout
        proc.queue("orders").send("order")
        assert proc.drain(LONG_S) == []
        broken.unlink()
        # Its next start is well: by command, or when its pause is over.
        assert proc.restart() == 2
        assert sorted(pids()) == [0, 1]
        assert vcores("box")[0].state != "FAILING"
    assert notes.read() == [[1]]
    reports = [line for line in log.read_text().splitlines() if line.startswith("ERROR")]
    assert len(reports) == 1
    assert "box/vcore 0: its worker has died 5 times in a row soon after its start (exit code 3)" in reports[0]


def test_workers_killed_at_work_are_replaced_at_once(notes: Notes) -> None:
    with running(define(lambda ev: notes(ev.arg1), vcores=1)) as proc:
        for i in range(12):
            proc.queue("orders").send("order", arg1=i)
            notes.wait(i + 1)
            until(lambda i=i: vcores("box")[0].handled == i + 1, "its end")
            victim = pids()[0]
            os.kill(victim, signal.SIGKILL)
            until(lambda victim=victim: pids().get(0) not in (None, victim), "the next")
            assert vcores("box")[0].fails == 0
        assert vcores("box")[0].restarts == 12


def test_a_stop_that_comes_before_user_code_begins_ends_it(tmp_path: Path) -> None:
    """It was seen in vcore context, on the way into `main`, and `main` slept over it."""
    for _ in range(20):
        proc = define(print, vcores=1)

        @proc.main
        def main() -> None:
            while True:
                signal.pause()

        proc.start()
        proc.stop(timeout=LONG_S)
