"""`async def` handlers: tasks of an event loop in each worker, whose events stay in hand until they end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import itertools
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import uvloop

import upcall
from procs import LONG_S, Gate, Notes, Words, abandon, discard, left, log_to, output, program, running, until
from procs import vcore_info as vcores
from upcall import EventFlag, EventType, Proc, inspect
from upcall.kern import const

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop] | None] = {"asyncio": None, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Runs the test on each loop."""
    return LOOPS[request.param]


async def passes(gate: Gate) -> None:
    """Waits at a gate without holding up the loop."""
    await asyncio.to_thread(gate.wait)


def sent(queue: upcall.Queue, count: int) -> None:
    for i in range(count):
        queue.send("order", arg1=i)


def eager_loop() -> asyncio.AbstractEventLoop:
    """One that takes a task's first step when the task is made."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    return loop


# Tasks


def test_a_loop_that_is_awake_anyhow_yields_when_nothing_comes_any_more(loop: Any, notes: Notes) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")

    @proc.main
    async def busy() -> None:
        while True:
            await asyncio.sleep(0)

    @proc.on("order")
    async def handler(ev: upcall.Event) -> None:
        notes(ev.arg1)

    with running(proc):
        before = until(lambda: vcores("box")[0].parks, "a vcore that has yielded")
        sent(queue, 1)
        notes.wait(1)
        until(lambda: vcores("box")[0].parks > before, "one that yields again")


def test_handlers_run_at_the_same_time(loop: Any, notes: Notes) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")
    all_there = asyncio.Event()
    here: list[int] = []

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        here.append(ev.arg1)
        if len(here) == 3:
            all_there.set()
        await all_there.wait()
        notes(ev.arg1, bytes(ev.payload).decode())

    with running(proc):
        for i in range(3):
            queue.send("order", b"x" * i * 100, arg1=i)
        proc.drain(timeout=LONG_S)
        assert vcores("box")[0].handled == 3
    assert sorted(notes.read()) == [[i, "x" * i * 100] for i in range(3)]


def test_an_event_is_in_hand_until_its_task_has_ended(loop: Any, gate: Gate, notes: Notes) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes("begun")
        await passes(gate)

    with running(proc):
        queue.send("order")
        notes.wait(1)
        assert inspect.snapshot("box").waiting == 1
        with pytest.raises(TimeoutError):
            proc.drain(timeout=0.01)
        gate.open(1)
        proc.drain(timeout=LONG_S)
        assert inspect.snapshot("box").waiting == 0


def test_no_more_than_max_concurrent_are_taken(loop: Any, gate: Gate, notes: Notes) -> None:
    proc = Proc("box", vcores=1, max_concurrent=2, loop=loop)
    queue, other = proc.queue("orders"), proc.queue("ticks")
    running_now: set[int] = set()

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        running_now.add(ev.arg1)
        notes("at once", len(running_now))
        await passes(gate)
        running_now.discard(ev.arg1)

    proc.on("tick")(lambda ev: notes("tick"))
    with running(proc):
        sent(queue, 6)
        notes.wait(2)
        other.send("tick")  # whose handler needs no task
        assert notes.wait(3)[2] == ["tick"]
        gate.open(6)
        proc.drain(timeout=LONG_S)
    assert max(note[1] for note in notes.read() if note[0] == "at once") == 2
    assert len(notes.read()) == 7


def test_a_full_vcore_leaves_its_queue_to_others(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=2, max_concurrent=1)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes(ev.vcore)
        await passes(gate)

    with running(proc):
        sent(queue, 2)
        assert {vcore for (vcore,) in notes.wait(2)} == {0, 1}
        gate.open(2)


def test_a_full_vcore_that_sleeps_takes_what_waits_when_its_task_ends(loop: Any, notes: Notes, gate: Gate) -> None:
    """Nobody tells it then: it looks again by itself."""
    proc = Proc("box", vcores=1, max_concurrent=1, loop=loop)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes(ev.arg1)
        await passes(gate)

    with running(proc):
        for i in range(0, 20, 2):
            queue.send("order", arg1=i)
            notes.wait(i + 1)
            queue.send("order", arg1=i + 1)
            until(lambda: inspect.snapshot("box").vcores[0].state == "OFFLINE", "a vcore asleep")
            assert len(notes.read()) == i + 1
            gate.open(1)
            notes.wait(i + 2)
            gate.open(1)
            proc.drain(timeout=LONG_S)
    assert notes.read() == [[i] for i in range(20)]


def test_full_vcores_lose_nothing_between_them(loop: Any) -> None:
    words = Words(300)
    proc = Proc("box", vcores=2, max_concurrent=1, loop=loop)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        await asyncio.sleep(ev.arg1 % 3 * 0.0005)
        words[ev.arg1] += 1

    with running(proc):
        for i in range(300):
            queue.send("order", arg1=i)
            if i % 7 == 0:
                time.sleep(0.001)  # so that they also meet an empty queue
            if i % 50 == 49:
                proc.drain(timeout=LONG_S)
    assert words.bytes() == b"\1" * 300
    words.close()


class OnlyAwait:
    """All that an awaitable has to have."""

    def __init__(self, steps: Any) -> None:
        self.steps = steps

    def __await__(self) -> Any:
        return self.steps


class LikeCython:
    """A coroutine that is none of Python's own."""

    def __init__(self, coroutine: Any) -> None:
        self.send, self.throw, self.close = coroutine.send, coroutine.throw, coroutine.close

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)


class Sends(OnlyAwait):
    """A `send` that is not a coroutine's."""

    def send(self, data: bytes) -> None:
        raise AssertionError("not for you")


def test_whatever_can_be_awaited_is_a_task(loop: Any, notes: Notes, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1, loop=loop or asyncio.new_event_loop)
    queue = proc.queue("orders")

    async def sleeps(what: str) -> None:
        await asyncio.sleep(0.001)
        notes(what)

    @types.coroutine
    def of_a_generator(what: str) -> Any:
        yield from sleeps(what).__await__()

    async def awaited() -> None:
        """Awaited once too often."""

    used = awaited()
    with pytest.raises(StopIteration):
        used.send(None)
    kinds: dict[str, Callable[[str], Any]] = {
        "future": lambda what: asyncio.ensure_future(sleeps(what)),
        "generator": of_a_generator,
        "only __await__": lambda what: OnlyAwait(sleeps(what).__await__()),
        "an iterator": lambda what: OnlyAwait(iter([notes(what)])),
        "with a send": lambda what: Sends(sleeps(what).__await__()),
        "like Cython's": lambda what: LikeCython(sleeps(what)),
        "no iterator": lambda what: OnlyAwait(3),
        "used": lambda what: used,
    }
    for kind, make in kinds.items():
        proc.on(kind)(lambda ev, make=make: make(ev.type))

    proc.on("a task")(types.coroutine(lambda ev: (yield from sleeps("itself").__await__())))
    with log_to(tmp_path / "log") as log, running(proc):
        for kind in kinds:
            queue.send(kind)
        queue.send("a task")
        proc.drain(timeout=LONG_S)
        assert vcores("box")[0].errors == 2
    assert sorted(what for (what,) in notes.read()) == sorted([*list(kinds)[:6], "itself"])
    assert "__await__() returned non-iterator of type 'int'" in log.read_text()
    assert "cannot reuse already awaited coroutine" in log.read_text()


@pytest.mark.parametrize("kind", ["an iterator", "like Cython's"])
def test_whatever_is_awaited_can_be_cancelled(kind: str, notes: Notes) -> None:
    proc = Proc("box", vcores=1, loop=asyncio.new_event_loop)
    queue = proc.queue("orders")

    async def waits() -> None:
        await asyncio.sleep(LONG_S * 100)

    @proc.on("order")
    def order(ev: upcall.Event) -> Any:
        notes("begun")
        return OnlyAwait(itertools.repeat(None)) if kind == "an iterator" else LikeCython(waits())

    with running(proc, stop="now"):
        queue.send("order")
        notes.wait(1)
    assert left("box") == 1
    discard("box")


COMPILED = """
import asyncio

notes = None

async def order(ev):
    notes("begun")
    await asyncio.sleep(ev.arg1)
    notes("ended")
"""


def test_a_handler_that_cython_has_compiled(notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says of itself that it is `async def`; its coroutines are none of Python's own."""
    (tmp_path / "compiled.py").write_text(COMPILED)
    link = [*shlex.split(sysconfig.get_config_var("LDSHARED")), "-O0", "-fPIC", "-I", sysconfig.get_path("include")]
    module = "compiled" + sysconfig.get_config_var("EXT_SUFFIX")
    for command in [sys.executable, "-m", "cython", "-3", "compiled.py"], [*link, "compiled.c", "-o", module]:
        subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.syspath_prepend(tmp_path)
    compiled = importlib.import_module("compiled")
    monkeypatch.delitem(sys.modules, "compiled")
    compiled.notes = notes
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    proc.on("order")(compiled.order)
    with running(proc, stop="now"):
        queue.send("order")
        proc.drain(timeout=LONG_S)
        queue.send("order", arg1=1000)
        notes.wait(3)
    assert notes.read() == [["begun"], ["ended"], ["begun"]]
    assert (left("box"), vcores("box")[0].errors) == (1, 0)  # one was cancelled
    discard("box")


def test_what_full_vcores_are_told_reaches_the_one_that_is_not(notes: Notes, gate: Gate) -> None:
    """One that was full once gave a core to the next that slept, full or not: the last one slept on, with work waiting."""
    proc = Proc("box", vcores=4, max_concurrent=1)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes(ev.vcore)
        await passes(gate)

    with running(proc):
        for i in range(4):
            queue.send("order", arg1=i)
            notes.wait(i + 1)
            until(lambda: all(each.state == "OFFLINE" for each in vcores("box").values()))
        assert {vcore for (vcore,) in notes.read()} == {0, 1, 2, 3}
        queue.send("order", arg1=4)  # all are full: the first whose task ends
        gate.open(5)
        notes.wait(5)


def test_handlers_of_both_kinds_share_a_queue(loop: Any, notes: Notes) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")

    @proc.on("async")
    async def later(ev: upcall.Event) -> None:
        await asyncio.sleep(0)
        notes("async")

    proc.on("plain")(lambda ev: notes("plain"))
    proc.on("task")(lambda ev: asyncio.ensure_future(later(ev)))
    with running(proc):
        for kind in ("async", "plain", "task"):
            queue.send(kind)
        proc.drain(timeout=LONG_S)
    assert sorted(notes.read()) == [["async"], ["async"], ["plain"]]


def test_an_exception_is_logged_and_the_event_counts_as_handled(loop: Any, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        await asyncio.sleep(0)
        raise (ValueError("bad order"), SystemExit(3), asyncio.CancelledError())[ev.arg1]

    with log_to(tmp_path / "log") as log, running(proc):
        sent(queue, 3)
        proc.drain(timeout=LONG_S)
        assert (vcores("box")[0].handled, vcores("box")[0].errors) == (3, 3)
        assert vcores("box")[0].restarts == 0
    text = log.read_text()
    for error in ("ValueError: bad order", "SystemExit: 3", "CancelledError"):
        assert error in text
    assert text.count("the event counts as handled") == 3


def test_a_task_that_is_cancelled_twice_by_the_program_is_handled(loop: Any, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        task.cancel()
        await asyncio.sleep(LONG_S)

    with log_to(tmp_path / "log") as log, running(proc):
        queue.send("order")
        proc.drain(timeout=LONG_S)
        assert vcores("box")[0].errors == 1
    assert "CancelledError" in log.read_text()


def test_a_program_that_cancels_all_tasks_keeps_its_worker(loop: Any, notes: Notes) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes(os.getpid())
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(0)

    with running(proc):
        sent(queue, 3)
        proc.drain(timeout=LONG_S)
        assert (vcores("box")[0].handled, vcores("box")[0].errors) == (3, 3)
        assert len({pid for (pid,) in notes.read()}) == 1


def test_what_holds_up_the_loop_is_named(loop: Any, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1, slow_callback_ms=10, loop=loop)
    queue = proc.queue("orders")

    @proc.on("async")
    async def sleeps_in_async(ev: upcall.Event) -> None:
        await asyncio.sleep(0)
        time.sleep(0.02)

    @proc.on("plain")
    def sleeps_in_plain(ev: upcall.Event) -> None:
        time.sleep(0.02)

    @proc.on("well")
    async def sleeps_well(ev: upcall.Event) -> None:
        await asyncio.sleep(0.02)

    with log_to(tmp_path / "log") as log, running(proc):
        for kind in ("async", "plain", "well"):
            queue.send(kind)
        proc.drain(timeout=LONG_S)
    text = log.read_text()
    assert "sleeps_in_async held up the event loop for" in text
    assert "sleeps_in_plain held up the event loop for" in text
    assert "sleeps_well" not in text


def test_a_batch_is_one_task(loop: Any, notes: Notes) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")

    @proc.on_batch("order", max=100)
    async def orders(batch: upcall.EventBatch) -> None:
        await asyncio.sleep(0)
        notes(*[(ev.arg1, len(ev.payload)) for ev in batch])

    with running(proc):
        queue.send_many("order", [bytes(i * 50) for i in range(10)])
        proc.drain(timeout=LONG_S)
        assert vcores("box")[0].handled == 10
    assert sorted(size for note in notes.read() for _, size in note) == [i * 50 for i in range(10)]


def test_a_bit_is_handled_by_a_task(loop: Any, notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    bits = proc.queue("bits", flags=EventFlag.NOMSG | EventFlag.IPI | EventFlag.INDIR | EventFlag.FALLBACK)

    async def tick(ev: upcall.Event) -> None:
        notes(ev.type, ev.is_bit)
        await passes(gate)

    proc.on("one")(tick)
    proc.on("two")(tick)
    with running(proc):
        bits.send("one")
        notes.wait(1)
        bits.send("one")
        bits.send("two")
        gate.open()
        proc.drain(timeout=LONG_S)
    assert sorted(notes.read()) == [["one", True], ["one", True], ["two", True]]


def test_mail_to_a_vcore_is_handled_by_a_task(notes: Notes) -> None:
    proc = Proc("box", vcores=2)

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        await asyncio.sleep(0)
        notes(ev.vcore, ev.queue)

    with running(proc):
        proc.vcore(1).send("order", private=True)
        proc.drain(timeout=LONG_S)
    assert notes.read() == [[1, None]]


def test_vcores_that_are_threads_have_a_loop_each(notes: Notes) -> None:
    proc = Proc("box", vcores=2, host="thread")
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        await asyncio.sleep(0)
        notes(ev.arg1)

    with running(proc):
        sent(queue, 20)
        proc.drain(timeout=LONG_S)
    assert sorted(notes.read()) == [[i] for i in range(20)]


def test_tasks_have_contexts_of_their_own(notes: Notes) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    proc = Proc("box", vcores=1, max_concurrent=1)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes(variable.get())
        variable.set(1)

    with running(proc):
        sent(queue, 3)
        proc.drain(timeout=LONG_S)
    assert notes.read() == [[0]] * 3


def test_the_first_step_does_not_wait_for_the_loops_next_round(loop: Any, notes: Notes) -> None:
    """It is taken when the event is, by a task as any other."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    proc = Proc("box", vcores=1, loop=loop or asyncio.new_event_loop)
    queue = proc.queue("orders")
    tasks: list[Any] = []

    async def later(ev: upcall.Event) -> None:
        before = variable.get()
        variable.set("set")
        async with asyncio.timeout(LONG_S):
            tasks.append(asyncio.current_task())
            notes("step", tasks[-1].get_name(), tasks[-1].get_coro().cr_code.co_name)
            await asyncio.sleep(0)
        assert tasks[-1] is asyncio.current_task()
        notes("end", len(set(map(id, tasks))), before, variable.get())

    @proc.on("order")
    def order(ev: upcall.Event) -> Any:
        asyncio.get_running_loop().call_soon(notes, "round")
        return later(ev)

    with running(proc):
        for _ in range(2):
            queue.send("order")
            proc.drain(timeout=LONG_S)
        assert vcores("box")[0].errors == 0
    name = f"box/vcore 0: {order.__qualname__}"
    assert notes.read() == [
        *(["step", name, "later"], ["round"], ["end", 1, "unset", "set"]),
        *(["step", name, "later"], ["round"], ["end", 2, "unset", "set"]),
    ]


def test_a_program_that_cancels_all_tasks_cancels_none_that_has_no_event_yet(loop: Any, notes: Notes) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")

    @proc.on("cancel")
    def cancel(ev: upcall.Event) -> None:
        for task in asyncio.all_tasks():
            task.cancel()
            task.cancel()

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        await asyncio.sleep(0)
        notes(ev.arg1)

    with running(proc):
        for i in range(5):
            queue.send("cancel")
            if i % 2:
                proc.drain(timeout=LONG_S)
            queue.send("order", arg1=i)
            proc.drain(timeout=LONG_S)
        assert (vcores("box")[0].handled, vcores("box")[0].errors) == (10, 0)
    assert notes.read() == [[i] for i in range(5)]


def test_a_loop_that_starts_tasks_at_once_runs_each_handler_once(
    notes: Notes, lacks: Callable[[str], NoReturn]
) -> None:
    """A task may be over before it is known."""
    if not hasattr(asyncio, "eager_task_factory"):
        lacks("asyncio.eager_task_factory, of Python 3.12")
    proc = Proc("box", vcores=1, loop=eager_loop)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes(ev.arg1)
        if ev.arg1 % 2:
            await asyncio.sleep(0)

    with running(proc):
        sent(queue, 20)
        proc.drain(timeout=LONG_S)
        assert (vcores("box")[0].handled, vcores("box")[0].errors) == (20, 0)
    assert sorted(notes.read()) == [[i] for i in range(20)]


def test_main_is_a_task_that_a_stop_cancels(loop: Any, notes: Notes) -> None:
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes("order"))

    @proc.main
    async def main() -> None:
        notes("main")
        try:
            await asyncio.sleep(LONG_S * 100)
        finally:
            notes("cancelled")

    with running(proc):
        notes.wait(1)
        queue.send("order")
        notes.wait(2)
    assert notes.read() == [["main"], ["order"], ["cancelled"]]


def test_a_loop_that_is_awake_costs_no_system_call(notes: Notes, gate: Gate) -> None:
    """G9: nor does one that has its byte already."""
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes(ev.arg1)
        gate.wait()  # in the loop: it is awake all the time

    with running(proc):
        queue.send("order", arg1=0)
        notes.wait(1)
        before = sum(slot.syscalls for slot in inspect.snapshot("box").slots if slot.pid == os.getpid())
        for i in range(1, 20):
            queue.send("order", arg1=i)
        after = sum(slot.syscalls for slot in inspect.snapshot("box").slots if slot.pid == os.getpid())
        gate.open()
    assert after == before


def test_a_coroutine_without_a_loop_is_an_error(tmp_path: Path) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    async def later() -> None:
        """Never runs."""

    proc.on("order")(lambda ev: later())
    with log_to(tmp_path / "log") as log, running(proc):
        queue.send("order")
        proc.drain(timeout=LONG_S)
        assert vcores("box")[0].errors == 1
    assert "define it with async def" in log.read_text()


def test_a_forked_child_that_comes_back_from_a_task_ends(notes: Notes, capfd: pytest.CaptureFixture[str]) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        await asyncio.sleep(0)
        pid = os.fork()
        if pid:
            notes(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    with running(proc):
        queue.send("order")
        proc.drain(timeout=LONG_S)
    assert notes.read() == [[1]]
    assert "came out of the code in which it was forked" in capfd.readouterr().err


# Deaths and stops


def test_each_event_of_a_killed_worker_is_handled_again(loop: Any, notes: Notes, gate: Gate) -> None:
    """G4: a worker killed with twenty tasks in flight loses none of them."""
    proc = Proc("box", vcores=1, loop=loop)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes(ev.arg1, ev.redelivered, len(ev.payload))
        if not ev.redelivered:
            await asyncio.Event().wait()

    with running(proc):
        for i in range(20):
            queue.send("order", bytes(i * 20), arg1=i)
        notes.wait(20)
        os.kill(vcores("box")[0].pid, signal.SIGKILL)
        notes.wait(40)
        proc.drain(timeout=LONG_S)
    assert sorted(notes.read()[20:]) == [[i, True, i * 20] for i in range(20)]


def test_workers_killed_again_and_again_lose_nothing(notes: Notes) -> None:
    words = Words(300)
    proc = Proc("box", vcores=2, max_concurrent=8)
    queue = proc.queue("orders", max_redeliveries=14)

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        await asyncio.sleep(0.002)
        words[ev.arg1] = 1

    with running(proc):
        for i in range(300):
            queue.send("order", arg1=i)
            if i % 60 == 30:
                pid = until(lambda i=i: vcores("box")[i // 60 % 2].pid, "a worker")
                with contextlib.suppress(ProcessLookupError):  # it may be dead already, and its successor not there
                    os.kill(pid, signal.SIGKILL)
        proc.drain(timeout=LONG_S)
    assert words.bytes() == b"\1" * 300
    words.close()


def test_a_draining_stop_finishes_the_tasks(loop: Any, notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1, max_concurrent=2, loop=loop)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes("begun", ev.arg1)
        await passes(gate)
        notes("done", ev.arg1)

    with running(proc):
        sent(queue, 5)
        notes.wait(2)
        gate.open(5)
    assert sorted(arg for what, arg in notes.read() if what == "done") == [0, 1, 2, 3, 4]


def test_a_stop_at_once_cancels_the_tasks_and_their_events_wait(loop: Any, notes: Notes) -> None:
    """Nobody died: the events are as new, those that were begun and those that were not."""

    def made() -> Proc:
        proc = Proc("box", vcores=1, max_concurrent=2, loop=loop)
        proc.queue("orders")

        @proc.on("order")
        async def order(ev: upcall.Event) -> None:
            notes("begun", ev.arg1, ev.redelivered, len(ev.payload))
            try:
                await asyncio.sleep(0 if len(notes.read()) > 2 else LONG_S * 100)
            except asyncio.CancelledError:
                if ev.arg1 == 1:
                    return  # it ends in peace: its event is done
                raise

        return proc

    first = made()
    with running(first, stop="now"):
        for i in range(4):
            first.queue("orders").send("order", bytes(i * 100), arg1=i)
        notes.wait(2)
    assert left("box") == 3
    with running(made()):
        notes.wait(5)
    assert sorted(notes.read()[2:]) == [["begun", i, False, i * 100] for i in (0, 2, 3)]


def test_a_cancelled_batch_waits_as_a_whole(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on_batch("order")
    async def orders(batch: upcall.EventBatch) -> None:
        notes(len(batch[0].payload))
        await asyncio.Event().wait()

    with running(proc, stop="now"):
        queue.send_many("order", [bytes(300)] * 5)
        notes.wait(1)
    assert left("box") == 5
    discard("box")


def test_a_restart_lets_the_tasks_end(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        notes("begun", os.getpid())
        await passes(gate)
        notes("done", os.getpid())

    with running(proc):
        queue.send("order")
        [[_, pid]] = notes.wait(1)
        os.kill(pid, signal.SIGTERM)
        until(lambda: not vcores("box")[0].pid or not vcores("box")[1].pid, "a vcore without a host")
        gate.open()
        proc.drain(timeout=LONG_S)
        until(lambda: all(vcore.pid not in (0, pid) for vcore in vcores("box").values()), "its successor")
    assert notes.read() == [["begun", pid], ["done", pid]]


def test_a_supervisors_death_leaves_the_loops_running(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        await asyncio.sleep(0)
        notes(ev.arg1)

    abandon(proc)
    with upcall.connect("box") as box:
        box.queue("orders").send("order", arg1=1)
    with running(proc):
        queue.send("order", arg1=2)
        notes.wait(2)
    assert sorted(notes.read()) == [[1], [2]]


@pytest.mark.parametrize("stop", ["drain", "restart"])
@pytest.mark.parametrize("waits", [False, True])
def test_a_call_that_needs_the_loop_ends_while_its_vcore_ends(stop: str, waits: bool, notes: Notes) -> None:
    """Called by a handler that is over, or by one whose task waits for the call."""
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    futures: dict[int, asyncio.Future[int]] = {}

    def ask(loop: asyncio.AbstractEventLoop) -> int:
        segment = proc.handle().segment
        if stop == "restart":
            os.kill(os.getpid(), signal.SIGTERM)
        while stop == "drain" and not segment.u32(segment.seg.procinfo + const.PI_STOP):
            time.sleep(0.001)
        return asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01, 42), loop).result()

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        loop = asyncio.get_running_loop()
        ident = proc.call(ask, loop)
        futures[ident] = loop.create_future()
        notes("begun", os.getpid())
        if waits:
            notes("task", await futures[ident])

    @proc.on(EventType.SYSCALL)
    def called(ev: upcall.Event) -> None:
        futures[ev.arg3].set_result(proc.result(ev))
        notes("event", os.getpid())

    with running(proc):
        queue.send("order")
        pid = notes.wait(1)[0][1]
        if stop == "restart":
            notes.wait(2 + waits)
    assert sorted(notes.read()[1:]) == [["event", pid], *([["task", 42]] if waits else [])]


# Bad input


def test_a_plain_main_beside_async_handlers_is_refused() -> None:
    proc = Proc("box", vcores=1)

    @proc.on("order")
    async def order(ev: upcall.Event) -> None:
        """Never runs."""

    @proc.main
    def main() -> None:
        """Never runs."""

    with pytest.raises(TypeError, match="make it async def too"):
        proc.start()


def test_a_handler_with_a_yield_is_refused() -> None:
    proc = Proc("box", vcores=1)

    async def order(ev: upcall.Event) -> Any:
        yield ev

    def plain(ev: upcall.Event) -> Any:
        yield ev

    for handler in (order, plain):
        with pytest.raises(TypeError, match="has a yield"):
            proc.on("order")(handler)
        with pytest.raises(TypeError, match="has a yield"):
            proc.queue("orders", handler=handler)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_concurrent": 0}, ValueError),
        ({"max_concurrent": True}, TypeError),
        ({"slow_callback_ms": 0}, ValueError),
        ({"loop": "uvloop"}, TypeError),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        Proc("box", **options)


def test_importing_upcall_imports_no_asyncio() -> None:
    code = "import sys, upcall; upcall.Proc('box'); sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("loop_name", LOOPS)
def test_a_program_in_debug_mode_says_nothing(tmp_path: Path, loop_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    source = """
        import asyncio, sys, uvloop, upcall
        proc = upcall.Proc("box", vcores=2, loop=uvloop.new_event_loop if sys.argv[1] == "uvloop" else None)
        queue = proc.queue("orders")
        @proc.on("order")
        async def order(ev):
            await asyncio.sleep(0.001)
        @proc.main
        async def patient():  # a busy machine is none of this test's business
            asyncio.get_running_loop().slow_callback_duration = 60
        with proc:
            for i in range(50):
                queue.send("order", bytes(i * 10))
            proc.drain()
            queue.send("order")
        print("done")
    """
    with program(tmp_path, source, loop_name) as process:
        assert output(process) == "done\n"
