"""`upcall.aio`: a program with a loop of its own receives and sends, on asyncio, uvloop and trio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import uvloop

import upcall
from procs import LONG_S, Gate, Notes, discard, ended, forked, left, output, program, running
from upcall import Proc
from upcall.aio import Process

Runs = Callable[[Callable[[], Awaitable[object]]], object]
LOOPS: dict[str, Runs] = {
    "asyncio": lambda main: asyncio.run(main()),  # type: ignore[arg-type]
    "uvloop": lambda main: uvloop.run(main()),  # type: ignore[arg-type]
    "trio": trio.run,
}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Runs:
    """Runs an async function, in each loop."""
    return LOOPS[request.param]


@pytest.fixture
def senders() -> Iterator[Callable[[Callable[[upcall.Queue], object]], int]]:
    """Starts processes that send to the queue `in` of `me`."""
    pids: list[int] = []

    def start(send: Callable[[upcall.Queue], object]) -> int:
        def life() -> None:
            # The last event may have been handled, and the process have ended, before its send looks whether it lives.
            with upcall.connect("me") as me, contextlib.suppress(upcall.ProcessGone):
                send(me.queue("in"))

        pids.append(forked(life))
        return pids[-1]

    yield start
    for pid in pids:
        assert ended(pid) == 0


def test_events_are_taken_by_a_loop(run: Runs, senders: Any) -> None:
    got = []

    async def main() -> None:
        async with Process("me", types=["order"]) as me:
            inbox = me.queue("in")
            senders(lambda q: [q.send("order", bytes(i), arg1=i) for i in range(200)])
            async for ev in inbox:
                got.append((ev.type, ev.arg1, len(ev.payload)))
                if ev.arg1 == 199:
                    ev.done()
                    break

    run(main)
    assert got == [("order", i, i) for i in range(200)]
    with pytest.raises(upcall.NoSuchProcess):
        upcall.connect("me")


def test_several_tasks_wait_for_several_queues(run: Runs) -> None:
    got: list[tuple[str, int]] = []

    async def main() -> None:
        async with Process("me", types=["order"]) as me, anyio.create_task_group() as tasks:
            one, two = me.queue("one"), me.queue("two")

            async def consume(queue: upcall.aio.Queue) -> None:
                async for ev in queue:
                    got.append((queue.name, ev.arg1))
                    ev.done()
                    if len(got) == 40:
                        tasks.cancel_scope.cancel()
                    await anyio.sleep(0)

            for queue in (one, one, two, two):
                tasks.start_soon(consume, queue)
            with upcall.connect("me") as sender:
                for i in range(20):
                    for name in ("one", "two"):
                        await sender.queue(name).asend("order", arg1=i)

    run(main)
    assert sorted(got) == sorted([("one", i) for i in range(20)] + [("two", i) for i in range(20)])


def test_what_is_not_done_waits_for_the_next_start(run: Runs) -> None:
    async def first() -> None:
        async with Process("me", types=["order"]) as me:
            inbox = me.queue("in")
            with upcall.connect("me") as sender:
                for i in range(4):
                    sender.queue("in").send("order", bytes(i * 100), arg1=i)
            (await inbox.get()).done()
            await inbox.get()

    async def second() -> None:
        async with Process("me") as me:
            for i in (1, 2, 3):
                ev = await me.queue("in").get()
                assert (ev.arg1, len(ev.payload), ev.redelivered) == (i, i * 100, False)
                ev.done()

    run(first)
    assert left("me") == 3
    run(second)


def test_an_exception_in_the_body_leaves_its_event(run: Runs) -> None:
    async def main() -> None:
        async with Process("me", types=["order"]) as me:
            inbox = me.queue("in")
            with upcall.connect("me") as sender:
                sender.queue("in").send("order")
            async for _ in inbox:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)
    assert left("me") == 1
    discard("me")


def test_a_wait_that_is_cancelled_takes_nothing(run: Runs) -> None:
    async def main() -> None:
        async with Process("me", types=["order"]) as me:
            inbox = me.queue("in")
            with anyio.move_on_after(0.01):
                await inbox.get()
            with upcall.connect("me") as sender:
                sender.queue("in").send("order", arg1=7)
            with anyio.fail_after(LONG_S):
                ev = await inbox.get()
            assert ev.arg1 == 7
            ev.done()
            ev.done()

    run(main)


def test_a_queue_that_nobody_waits_for_lets_the_others_sleep(run: Runs, senders: Any) -> None:
    """Its events wait; the vcore sleeps all the same."""

    async def main() -> None:
        async with Process("me", types=["order"]) as me:
            inbox, _ = me.queue("in"), me.queue("other")
            with upcall.connect("me") as sender:
                sender.queue("other").send("order")
                with anyio.move_on_after(0.02):
                    await inbox.get()
                assert not select.select([me.fileno()], [], [], 0)[0]
                sender.queue("in").send("order", arg1=1)
            (await inbox.get()).done()
            (await me.queue("other").get()).done()

    run(main)


def test_a_queue_without_events_does_not_wait_for_those_of_another() -> None:
    def life() -> None:
        with Process("me", types=["order"]) as me:
            one, two = me.queue("one"), me.queue("two")
            with upcall.connect("me") as sender:
                assert one.take() is None
                sender.queue("two").send("order")
                assert one.take() is None
                assert select.select([me.fileno()], [], [], 0)[0]
                ev = two.take()
                assert ev is not None
                ev.done()
                assert two.take() is None
                assert one.take() is None
                assert not select.select([me.fileno()], [], [], 0)[0]

    assert ended(forked(life)) == 0


def test_an_event_of_one_queue_reaches_its_task_though_others_wait_first(run: Runs) -> None:
    got: list[str] = []

    async def main() -> None:
        async with Process("me", types=["order"]) as me, anyio.create_task_group() as tasks:

            async def consume(queue: upcall.aio.Queue) -> None:
                (await queue.get()).done()
                got.append(queue.name)

            for name in ("one", "two", "three"):
                tasks.start_soon(consume, me.queue(name))
                await anyio.wait_all_tasks_blocked()
            with upcall.connect("me") as sender:
                for name in ("two", "three", "one"):
                    sender.queue(name).send("order")
                    while name not in got:
                        await anyio.sleep(0)

    assert ended(forked(lambda: run(main))) == 0


def test_tasks_that_wait_when_the_process_stops_are_told(run: Runs) -> None:
    told: list[str] = []

    async def main() -> None:
        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as tasks, Process("me") as me:

                async def wait(queue: upcall.aio.Queue) -> None:
                    with pytest.raises(RuntimeError, match="does not run"):
                        await queue.get()
                    told.append(queue.name)

                for name in ("one", "one", "two"):
                    tasks.start_soon(wait, me.queue(name))
                await anyio.wait_all_tasks_blocked()

    run(main)
    assert sorted(told) == ["one", "one", "two"]


def test_the_file_is_readable_whenever_something_waits(senders: Any) -> None:
    got = []
    with Process("me", types=["order"]) as me:
        inbox = me.queue("in")
        assert inbox.take() is None
        assert not select.select([me.fileno()], [], [], 0)[0]
        senders(lambda q: [q.send("order", arg1=i) for i in range(50)])
        while len(got) < 50:
            assert select.select([me.fileno()], [], [], LONG_S)[0]
            ev = inbox.take()  # one at a time: what is left must show
            if ev is not None:
                got.append(ev.arg1)
                ev.done()
        assert inbox.take() is None
        assert not select.select([me.fileno()], [], [], 0)[0]
    assert got == list(range(50))


def test_a_killed_receiver_gets_its_events_again() -> None:
    """G4: those that it had in hand, and says so."""

    def life() -> None:
        async def main() -> None:
            async with Process("me", types=["order"]) as me:
                inbox = me.queue("in")
                with upcall.connect("me") as sender:
                    for i in range(5):
                        sender.queue("in").send("order", arg1=i)
                for _ in range(3):
                    await inbox.get()
                os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())

    assert ended(forked(life)) == -signal.SIGKILL
    got = []
    with Process("me") as me:
        while (ev := me.queue("in").take()) is not None:
            got.append((ev.arg1, ev.redelivered))
            ev.done()
    assert sorted(got) == [(0, True), (1, True), (2, True), (3, False), (4, False)]


# asend


def test_asend_waits_for_room_and_the_loop_goes_on(run: Runs, notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", limit=2)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1)
        gate.wait()

    async def main() -> None:
        sent = 0

        async def send() -> None:
            nonlocal sent
            for i in range(6):
                await queue.asend("order", arg1=i)
                sent += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            while sent < 2:
                await anyio.sleep(0.001)
            gate.open()

    with running(proc):
        run(main)
        proc.drain(timeout=LONG_S)
    assert notes.read() == [[i] for i in range(6)]


def test_asend_that_is_cancelled_has_sent_nothing(run: Runs, notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", limit=1)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1)
        gate.wait()

    async def main() -> None:
        for i in range(3):
            with anyio.move_on_after(0.02):
                await queue.asend("order", arg1=i)

    with running(proc):
        queue.send("order", arg1=9)
        run(main)
        gate.open()
        proc.drain(timeout=LONG_S)
    assert notes.read() == [[9]]


def test_asend_raises_where_the_queue_does(run: Runs, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", limit=1, on_full="raise")
    proc.on("order")(lambda ev: gate.wait())

    async def main() -> None:
        for _ in range(3):
            await queue.asend("order")

    with running(proc):
        with pytest.raises(upcall.MailboxFull):
            run(main)
        gate.open()


# asend_many


def order_box(notes: Notes, gate: Gate, **options: Any) -> tuple[Proc, upcall.Queue]:
    """A process that takes an order for each opening of the gate."""
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", **options)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(bytes(ev.payload).decode())
        gate.wait()

    return proc, queue


@pytest.mark.parametrize("kind", [list, iter])
def test_asend_many_waits_for_room_and_the_loop_goes_on(
    run: Runs, kind: Callable[[list[bytes]], Any], notes: Notes, gate: Gate
) -> None:
    proc, queue = order_box(notes, gate, limit=2)
    numbers = [f"{i}" for i in range(8)]
    said: list[object] = []

    async def main() -> None:
        async def send() -> None:
            said.append(await queue.asend_many("order", kind([n.encode() for n in numbers])))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            while not notes.read():
                await anyio.sleep(0.001)
            await anyio.sleep(0.01)
            assert not said
            gate.open(8)

    with running(proc):
        run(main)
        proc.drain(timeout=LONG_S)
    assert said == [8]
    assert notes.read() == [[n] for n in numbers]


def test_asend_many_says_how_many_went_when_it_is_cancelled(run: Runs, notes: Notes, gate: Gate) -> None:
    proc, queue = order_box(notes, gate, limit=2)
    sent: list[int] = []

    async def main() -> None:
        with anyio.move_on_after(0.05):
            try:
                await queue.asend_many("order", [f"{i}".encode() for i in range(8)])
            except BaseException as error:
                sent.append(error.sent)  # type: ignore[attr-defined]
                raise

    with running(proc):
        run(main)
        gate.open(8)
        proc.drain(timeout=LONG_S)
    assert sent == [len(notes.read())]
    assert notes.read() == [[f"{i}"] for i in range(sent[0])]
    assert 2 <= sent[0] <= 3


def test_asend_many_says_how_many_went_before_an_error(run: Runs, notes: Notes, gate: Gate) -> None:
    proc, queue = order_box(notes, gate)
    full = proc.queue("small", limit=1, on_full="raise")

    async def main() -> None:
        with pytest.raises(TypeError) as caught:
            await queue.asend_many("order", [b"0", b"1", "2"])
        assert caught.value.sent == 2  # type: ignore[attr-defined]
        await full.asend("order", b"3")
        with pytest.raises(upcall.MailboxFull) as refused:
            await full.asend_many("order", [b"4"] * 3)
        assert refused.value.sent == 0

    with running(proc):
        run(main)
        gate.open(3)
        proc.drain(timeout=LONG_S)
    assert sorted(notes.read()) == [["0"], ["1"], ["3"]]


def test_asend_many_of_more_than_a_chunk_keeps_the_order(run: Runs) -> None:
    async def main() -> None:
        async with Process("me", types=["order"]) as me:
            inbox = me.queue("in")
            numbers = [i.to_bytes(4, "little") for i in range(3 * upcall.aio.CHUNK + 5)]
            with upcall.connect("me") as sender:
                assert await sender.queue("in").asend_many("order", numbers) == len(numbers)
                assert await sender.queue("in").asend_many("order", ()) == 0
            got = []
            while (ev := inbox.take()) is not None:
                got.append(bytes(ev.payload))
                ev.done()
            assert got == numbers

    run(main)


# Bad input


def test_what_does_not_run_says_so() -> None:
    me = Process("me")
    with pytest.raises(RuntimeError, match="does not run"):
        me.queue("in")
    with me:
        inbox = me.queue("in")
        with pytest.raises(RuntimeError, match="runs already"):
            me.__enter__()
        with pytest.raises(upcall.NameInUse):
            Process("me").__enter__()
    for use in (me.fileno, inbox.take):
        with pytest.raises(RuntimeError, match="does not run"):
            use()
    with pytest.raises(AttributeError, match="no attribute 'aoi'"):
        _ = upcall.aoi  # type: ignore[attr-defined]


def test_an_event_that_outlives_its_process_is_an_error_to_finish() -> None:
    with Process("me", types=["order"]) as me:
        with upcall.connect("me") as sender:
            me.queue("in")
            sender.queue("in").send("order")
        ev = me.queue("in").take()
        assert ev is not None
    with pytest.raises(upcall.SegmentError, match="closed"):
        ev.done()
    discard("me")


def test_a_forked_child_and_another_thread_get_clear_errors(notes: Notes) -> None:
    with Process("me") as me:
        inbox = me.queue("in")

        def child() -> None:
            with pytest.raises(upcall.ForkedHandle):
                inbox.take()

        def thread() -> None:
            try:
                inbox.take()
            except RuntimeError as error:
                notes(str(error))

        assert ended(forked(child)) == 0
        other = threading.Thread(target=thread)
        other.start()
        other.join()
    assert "receives in the thread that has started it" in notes.read()[0][0]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_program_in_debug_mode_says_nothing(tmp_path: Path, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    source = """
        import asyncio, sys, trio, uvloop, upcall
        async def main():
            if sys.argv[1] != "trio":
                asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is none of this test's business
            async with upcall.aio.Process("me", types=["order"]) as me:
                inbox = me.queue("in")
                with upcall.connect("me") as sender:
                    for i in range(20):
                        await sender.queue("in").asend("order", bytes(i * 50))
                for i in range(20):
                    ev = await inbox.get()
                    assert len(ev.payload) == i * 50
                    ev.done()
        if sys.argv[1] == "trio":
            trio.run(main)
        else:
            {"asyncio": asyncio, "uvloop": uvloop}[sys.argv[1]].run(main())
        print("done")
    """
    with program(tmp_path, source, loop) as process:
        assert output(process) == "done\n"
