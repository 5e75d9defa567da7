"""Forked children of attached processes: they keep no dead parent alive, touch nothing of it, are told so, and may connect
anew. With real forks, of senders and from inside handlers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import upcall
from procs import LONG_S, Gate, Notes, ended, forked, output, program, running, until
from procs import vcore_info as vcores
from upcall import ForkedHandle, Proc, inspect
from upcall.host.segment import folder

SIZES = [0, 10, 600, 200_000]
"""Payloads: none, in the slot, in a small block, in a large one."""

LIST_FILES = """
import glob, os
print([os.readlink(path) for path in glob.glob("/proc/self/fd/*") if os.path.lexists(path)])
"""


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Notes]:
    found = Notes(tmp_path / "notes")
    yield found
    found.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    found = Gate()
    yield found
    found.close()


def handling(handler: Callable[[upcall.Event], object], **options: Any) -> tuple[Proc, upcall.Queue]:
    """A process of one vcore with this handler."""
    proc = Proc("box", vcores=1, **options)
    queue = proc.queue("orders")
    proc.on("order")(handler)
    return proc, queue


def own_files() -> list[str]:
    """What this process has open of segments. Not their folders, which keep nobody alive: one is open while another thread
    makes a socket in it."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [path for path in found if path.startswith(str(folder())) and not os.path.isdir(path)]


def own_mappings() -> list[str]:
    """What this process has mapped of segments."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder()) in line]


def refused(use: Callable[[], object]) -> bool:
    try:
        use()
    except ForkedHandle:
        return True
    return False


def wait_for(pid: int) -> int:
    """A child's exit code, in a handler."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# A sender's child


def test_a_forked_child_has_no_file_and_no_mapping_of_its_parents() -> None:
    proc, _ = handling(lambda ev: None)
    with running(proc), upcall.connect("box") as remote:
        remote.queue("orders").send("order", bytes(600))
        proc.handle()
        assert own_files()
        assert own_mappings()

        def child() -> None:
            assert own_files() == []
            assert own_mappings() == []
            # The objects lead to memory of its own: zeros, and nobody sees what is written there.
            memory = remote._handle.segment.memory
            assert not any(memory[: 1 << 20])
            memory[: 1 << 20] = b"\xff" * (1 << 20)
            assert remote._handle.segment.u64(0) == 2**64 - 1

        assert ended(forked(child)) == 0
        remote.queue("orders").send("order")
        assert proc.drain(LONG_S) == []
        assert inspect.snapshot("box").error is None


def test_a_forked_child_of_the_owner_is_told_so() -> None:
    handled = []
    proc, queue = handling(lambda ev: handled.append(ev.arg1))
    with running(proc):
        queue.send("order")

        def child() -> None:
            assert refused(lambda: queue.send("order"))
            assert refused(lambda: proc.vcore(0))
            assert refused(lambda: proc.drain(LONG_S))
            assert refused(lambda: proc.signal(10))
            assert refused(proc.stats)
            assert refused(proc.stop)
            with upcall.connect("box") as fresh:
                fresh.queue("orders").send("order")

        assert ended(forked(child)) == 0
        queue.send("order")
        assert proc.drain(LONG_S) == []
        assert sum(vcore.handled for vcore in vcores("box").values()) == 3


def test_a_forked_child_that_leaves_the_block_stops_nobody() -> None:
    proc, queue = handling(lambda ev: None)

    def child() -> None:
        with contextlib.suppress(KeyError), proc_block:
            raise KeyError

    proc_block = contextlib.ExitStack()
    proc_block.push(proc.__exit__)
    with running(proc):
        assert ended(forked(child)) == 0
        queue.send("order")
        assert proc.drain(LONG_S) == []
        assert inspect.snapshot("box").attended


def test_a_child_of_a_child_connects_anew(notes: Notes) -> None:
    proc, queue = handling(lambda ev: notes(ev.arg1))
    with running(proc):
        queue.send("order", arg1=1)

        def child(depth: int) -> None:
            assert refused(lambda: queue.send("order"))
            with upcall.connect("box") as remote:
                remote.queue("orders").send("order", arg1=depth)
                if depth < 4:
                    assert ended(forked(lambda: child(depth + 1))) == 0
                remote.queue("orders").send("order", arg1=depth + 10)
            del remote
            gc.collect()  # a FIFO that was written to is open as long as the handle is there
            assert own_files() == []

        assert ended(forked(lambda: child(2))) == 0
        assert proc.drain(LONG_S) == []
    assert sorted(note[0] for note in notes.read()) == [1, 2, 3, 4, 12, 13, 14]


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_childs_life_does_not_hide_the_senders_death(gate: Gate, how: str) -> None:
    proc, _ = handling(lambda ev: None)
    child_pid = Gate()
    read, write = os.pipe()
    with running(proc):

        def sender() -> None:
            remote = upcall.connect("box")
            remote.queue("orders").send("order")
            os.write(write, b"%d" % forked(gate.wait))
            child_pid.wait()
            os._exit(7)  # without a detach

        pid = forked(sender)
        child = int(os.read(read, 20))
        assert any(slot.alive for slot in inspect.snapshot("box").slots if slot.pid == pid)
        if how == "killed":
            os.kill(pid, signal.SIGKILL)
        else:
            child_pid.open()
        ended(pid)
        until(lambda: not any(slot.alive for slot in inspect.snapshot("box").slots if slot.pid == pid))
        os.kill(child, 0)
        gate.open()
        assert ended(child) == 0
    for fd in (read, write):
        os.close(fd)
    child_pid.close()


def test_a_fork_in_one_thread_while_others_send(notes: Notes) -> None:
    proc, _ = handling(lambda ev: notes(ev.arg1))
    with running(proc), upcall.connect("box") as remote:
        queue = remote.queue("orders")
        stop = threading.Event()
        sent = [0, 0]

        def send(i: int) -> None:
            while not stop.is_set():
                queue.send("order", bytes(600 * i), arg1=i)
                sent[i] += 1

        threads = [threading.Thread(target=send, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()

        def child() -> None:
            assert refused(lambda: queue.send("order"))
            assert own_files() == []
            with upcall.connect("box") as fresh:
                fresh.queue("orders").send("order", arg1=2)

        for _ in range(20):
            assert ended(forked(child)) == 0
        stop.set()
        for thread in threads:
            thread.join()
        assert proc.drain(LONG_S) == []
    handled = [note[0] for note in notes.read()]
    assert [handled.count(i) for i in range(3)] == [*sent, 20]


def test_a_child_that_ends_as_programs_do_touches_nothing_of_its_parent(tmp_path: Path, notes: Notes) -> None:
    """Finalizers, exit functions and the interpreter's own end run in the child."""
    source = """
        import atexit, gc, os, sys, threading
        import upcall

        class Loud:
            def __del__(self):
                try:
                    remote.close()
                except BaseException as error:
                    print("in __del__", type(error).__name__)

        remote = upcall.connect("box")
        queue = remote.queue("orders")
        queue.send("order", arg1=1)
        other = threading.Thread(target=lambda: (queue.send("order", arg1=1), sent.set(), gate.wait()))
        sent, gate = threading.Event(), threading.Event()
        other.start()
        sent.wait()
        cycle = [Loud()]
        cycle.append(cycle)
        atexit.register(lambda: print("exit", os.getpid() == parent))
        parent = os.getpid()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            fresh = upcall.connect("box")
            fresh.queue("orders").send("order", arg1=2)
            del cycle
            gc.collect()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        queue.send("order", arg1=3)
        gate.set()
        other.join()
        del queue, cycle
    """
    proc, _ = handling(lambda ev: notes(ev.arg1))
    with running(proc):
        with program(tmp_path, source) as child:
            assert output(child).splitlines() == ["exit False", "exit True"]
            assert child.returncode == 0
        assert proc.drain(LONG_S) == []
        assert inspect.snapshot("box").error is None
    assert [note[0] for note in notes.read()] == [1, 1, 2, 3]


def test_a_signal_handler_that_forks_while_a_send_waits(gate: Gate, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1)
    orders = proc.queue("orders", limit=1)
    proc.on("order")(lambda ev: gate.wait())
    source = """
        import os, signal, sys
        import upcall

        def fork(signum, frame):
            pid = os.fork()
            print("child" if pid == 0 else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)

        signal.signal(signal.SIGUSR1, fork)
        with upcall.connect("box") as remote:
            orders = remote.queue("orders")
            print("here", flush=True)
            try:
                for _ in range(9):
                    orders.send("order")
            except upcall.ForkedHandle:
                os._exit(9)
    """
    with running(proc), program(tmp_path, source) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        until(lambda: any(slot.waits for slot in inspect.snapshot("box").slots))
        child.send_signal(signal.SIGUSR1)
        assert [child.stdout.readline() for _ in range(2)] == ["child\n", "9\n"]
        gate.open()
        assert output(child) == ""
        assert child.returncode == 0
        orders.send("order")


# A handler's child


@pytest.mark.parametrize("host", ["process", "thread"])
@pytest.mark.parametrize("size", SIZES)
def test_an_event_in_a_handlers_child(notes: Notes, size: int, host: str) -> None:
    sent = os.urandom(size)

    def handler(ev: upcall.Event) -> None:
        view = ev.payload
        copy = bytes(ev.payload)

        def child() -> None:
            assert copy == sent
            assert refused(lambda: ev.payload)
            assert refused(lambda: bytes(memoryview(ev)))
            assert (ev.type, ev.arg1, ev.queue) == ("order", 5, "orders")
            assert len(bytes(view)) == size
            view.release()
            assert refused(lambda: queue.send("order"))
            assert own_files() == []
            with upcall.connect("box") as fresh:
                fresh.queue("other").send("other", copy)

        notes("child", ended(forked(child)))
        notes("parent", bytes(ev.payload) == sent, bytes(view) == sent)

    proc, queue = handling(handler, host=host)
    proc.queue("other")
    proc.on("other")(lambda ev: notes("other", bytes(ev.payload) == sent))
    with running(proc):
        queue.send("order", sent, arg1=5)
        assert proc.drain(LONG_S) == []
    assert notes.read() == [["child", 0], ["parent", True, True], ["other", True]]


def test_a_batch_in_a_handlers_child(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on_batch("order")
    def orders(batch: upcall.EventBatch) -> None:
        def child() -> None:
            assert len(batch) >= 1
            assert refused(lambda: batch[0])
            assert refused(lambda: list(batch))

        notes(len(batch), ended(forked(child)), [len(ev.payload) for ev in batch])

    with running(proc):
        queue.send("order", bytes(700))
        assert proc.drain(LONG_S) == []
    assert notes.read() == [[1, 0, [700]]]


def fall_out(ev: upcall.Event) -> None:
    """Returns in the child too."""


def fall_out_of_exit(ev: upcall.Event) -> None:
    sys.exit(3)


def fall_out_of_raise(ev: upcall.Event) -> None:
    raise RuntimeError("lost")


@pytest.mark.parametrize("host", ["process", "thread"])
@pytest.mark.parametrize("leave", [fall_out, fall_out_of_exit, fall_out_of_raise])
@pytest.mark.parametrize("batch", [False, True])
def test_a_child_that_comes_out_of_a_handler_ends(
    notes: Notes, capfd: pytest.CaptureFixture[str], leave: Callable[[Any], None], host: str, batch: bool
) -> None:
    def handler(ev: Any) -> None:
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            leave(ev)
            return
        notes(wait_for(pid), me == os.getpid())

    proc = Proc("box", vcores=1, host=host)  # type: ignore[arg-type]
    queue = proc.queue("orders")
    (proc.on_batch("order") if batch else proc.on("order"))(handler)
    with running(proc):
        pid = vcores("box")[0].pid
        queue.send("order", bytes(600))
        queue.send("order")
        assert proc.drain(LONG_S) == []
        found = vcores("box")[0]
        assert (found.pid, found.handled, found.redelivered, found.errors) == (pid, 2, 0, 0)
        assert inspect.snapshot("box").error is None
    code = 3 if leave is fall_out_of_exit else 1
    assert [tuple(note) for note in notes.read()] in ([(code, True)] * 2, [(code, True)])
    said = capfd.readouterr().err
    if leave is fall_out_of_exit:
        assert said == ""
    else:
        assert "upcall: box/vcore 0: process" in said
        assert "a forked child of this worker, came out of the code in which it was forked" in said
        assert ("RuntimeError: lost" in said) == (leave is fall_out_of_raise)


@pytest.mark.parametrize("where", ["main", "THREAD", "bit"])
def test_a_child_that_comes_out_of_other_user_code_ends(
    notes: Notes, capfd: pytest.CaptureFixture[str], where: str
) -> None:
    flags = {
        "main": upcall.flags.WORK_QUEUE,
        "THREAD": upcall.flags.WORK_QUEUE | upcall.EventFlag.THREAD,
        "bit": upcall.flags.WORK_QUEUE | upcall.EventFlag.NOMSG,
    }[where]
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", flags=flags)

    def fork(*_: object) -> None:
        pid = os.fork()
        if pid:
            notes(wait_for(pid))

    if where == "main":
        proc.main(fork)
        proc.on("order")(lambda ev: None)
    else:
        proc.on("order")(fork)
    with running(proc):
        pid = vcores("box")[0].pid
        queue.send("order")
        assert notes.wait(1) == [[1]]
        assert proc.drain(LONG_S) == []
        queue.send("order")
        assert proc.drain(LONG_S) == []
        assert (vcores("box")[0].pid, vcores("box")[0].handled) == (pid, 2)
    assert "came out of the code in which it was forked" in capfd.readouterr().err


@pytest.mark.parametrize("at_work", [False, True], ids=["asleep", "in main"])
def test_a_signal_handler_that_forks_in_a_worker(
    notes: Notes, gate: Gate, capfd: pytest.CaptureFixture[str], at_work: bool
) -> None:
    def fork(signum: int, frame: object) -> None:
        pid = os.fork()
        if pid:
            notes(wait_for(pid))

    proc, queue = handling(lambda ev: notes("handled"))

    @proc.main
    def main() -> None:
        signal.signal(signal.SIGUSR1, fork)
        notes("ready")
        if at_work:
            gate.wait()

    with running(proc):
        notes.wait(1)
        if not at_work:
            until(lambda: vcores("box")[0].state == "OFFLINE")
        pid = vcores("box")[0].pid
        os.kill(pid, signal.SIGUSR1)
        if at_work:
            gate.open()
        notes.wait(2)
        queue.send("order")
        assert notes.wait(3) == [["ready"], [1], ["handled"]]
        assert vcores("box")[0].pid == pid
    assert "came out of the code in which it was forked" in capfd.readouterr().err


def test_a_handlers_children_of_every_kind(notes: Notes) -> None:
    fork = multiprocessing.get_context("fork")

    def square(queue: Any, n: int) -> None:
        queue.put(n * n)

    def handler(ev: upcall.Event) -> None:
        queue = fork.SimpleQueue()
        child = fork.Process(target=square, args=(queue, ev.arg1))
        child.start()
        child.join()
        notes("Process", queue.get(), child.exitcode)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as pool:
            notes("pool", list(pool.map(abs, [-1, -2, -3])))
        for options in ({}, {"close_fds": False}, {"preexec_fn": lambda: None}):
            done = subprocess.run([sys.executable, "-c", LIST_FILES], capture_output=True, text=True, **options)  # type: ignore[call-overload]
            notes("subprocess", done.returncode, str(folder()) in done.stdout)
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "raise SystemExit(5)"], os.environ)
        notes("posix_spawn", wait_for(pid))
        ready, done_ = Gate(), threading.Thread(target=lambda: notes("thread", ended(forked(lambda: None))))
        done_.start()
        done_.join()
        ready.close()

    proc, queue = handling(handler)
    with running(proc):
        for i in range(2):
            queue.send("order", bytes(600), arg1=i + 3)
        assert proc.drain(LONG_S) == []
        found = vcores("box")[0]
        assert (found.handled, found.errors, found.restarts) == (2, 0, 0)
    for i in range(2):
        assert notes.read()[i * 7 : i * 7 + 7] == [
            ["Process", (i + 3) ** 2, 0],
            ["pool", [1, 2, 3]],
            ["subprocess", 0, False],
            ["subprocess", 0, False],
            ["subprocess", 0, False],
            ["posix_spawn", 5],
            ["thread", 0],
        ]


def test_the_signals_of_a_worker_are_not_its_childrens(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        go = Gate()
        pid = forked(go.wait)
        os.kill(pid, signal.SIGURG)
        go.open()
        interrupted = ended(pid)
        pid = forked(gate.wait)
        if ev.arg1 % 2:
            time.sleep(0.001)  # later in the child's life
        os.kill(pid, signal.SIGTERM)
        notes(interrupted, ended(pid))
        go.close()

    proc, queue = handling(handler)
    with running(proc):
        pid = vcores("box")[0].pid
        for i in range(20):
            queue.send("order", arg1=i)
        assert notes.wait(20) == [[0, -signal.SIGTERM]] * 20
        assert vcores("box")[0].pid == pid


def test_the_signals_of_a_supervisor_are_not_its_programs_childrens(notes: Notes, tmp_path: Path) -> None:
    source = """
        import os, signal, sys, threading, time
        import upcall

        proc = upcall.Proc("box", vcores=1)
        queue = proc.queue("orders")
        proc.on("order")(lambda ev: print("handled", flush=True))

        def beside():
            with upcall.connect("box") as remote:
                for _ in range(5):
                    pid = os.fork()
                    if pid == 0:
                        time.sleep(20)
                        os._exit(0)
                    os.kill(pid, signal.SIGTERM)
                    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
                remote.queue("orders").send("order")
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGTERM)

        def start():
            while True:
                try:
                    return beside()
                except upcall.UpcallError:
                    time.sleep(0.01)

        threading.Thread(target=start).start()
        proc.run()
    """
    with program(tmp_path, source) as child:
        assert output(child).splitlines() == ["-15"] * 5 + ["handled"]
        assert child.returncode == 0


def test_a_childs_life_does_not_hide_the_workers_death(notes: Notes, gate: Gate) -> None:
    def handler(ev: upcall.Event) -> None:
        if not ev.redelivered:
            notes("child", forked(gate.wait))
            os.kill(os.getpid(), signal.SIGKILL)
        notes("again", bytes(ev.payload) == bytes(range(200)) * 10)

    proc, queue = handling(handler)
    with running(proc):
        pid = vcores("box")[0].pid
        queue.send("order", bytes(range(200)) * 10)
        found = notes.wait(2)
        child = found[0][1]
        assert found[1] == ["again", True]
        os.kill(child, 0)
        assert vcores("box")[0].pid != pid
        assert proc.drain(LONG_S) == []
        gate.open()
        assert ended(child) == 0  # it has become ours: the tests adopt orphans


def test_a_childs_life_does_not_hide_the_supervisors_death(notes: Notes, gate: Gate) -> None:
    proc, queue = handling(lambda ev: notes("child", forked(gate.wait)))
    proc.start()
    queue.send("order")
    child = notes.wait(1)[0][1]
    supervisor, worker = proc._running.pid, vcores("box")[0].pid
    for pid in (supervisor, worker):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not inspect.snapshot("box").attended)
    until(lambda: not vcores("box")[0].alive)
    proc.stop(timeout=LONG_S)
    os.kill(child, 0)
    again, queue = handling(lambda ev: notes("again"))
    with running(again):
        queue.send("order")
        assert again.drain(LONG_S) == []
    gate.open()
    assert ended(child) == 0
    assert ["again"] in notes.read()


def test_children_of_a_starting_program_do_not_hold_what_they_inherit(notes: Notes, gate: Gate) -> None:
    """A child that is forked by another thread at any moment of an attachment's life keeps no lock of it."""
    proc, _ = handling(lambda ev: None)
    with running(proc):
        children: list[int] = []
        stop = threading.Event()

        def fork_on() -> None:
            while not stop.is_set() and len(children) < 60:
                children.append(forked(gate.wait))

        thread = threading.Thread(target=fork_on)
        thread.start()
        for _ in range(100):
            with upcall.connect("box") as remote:
                remote.queue("orders").send("order")
        stop.set()
        thread.join()
        assert proc.drain(LONG_S) == []
        mine = [slot for slot in inspect.snapshot("box").slots if slot.pid == os.getpid() and slot.alive]
        assert len(mine) <= 1, mine  # the Proc's own, for `drain`
        gate.open()
        for child in children:
            assert ended(child) == 0
