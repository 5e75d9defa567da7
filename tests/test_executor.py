"""`upcall.Executor` as a program uses it: what `concurrent.futures` promises, and what it does not."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import functools
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

import upcall
from procs import FORK_BESIDE_THREADS
from upcall.errors import UpcallError
from upcall.executor import Executor, RemoteTraceback
from upcall.executor.pool import STARTS_MAX, Pool
from upcall.host import tables
from upcall.host.messages import messages
from upcall.kern import const
from upcall.kern.arena import alloc_block
from upcall.kern.layout import evq_at, map_at
from upcall.kern.proc import is_running

NUMBER = 7


def add(a: int, b: int = 1) -> int:
    return a + b


def pid() -> int:
    return os.getpid()


def raises() -> NoReturn:
    raise LookupError("not here")


def kill_self(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def segfault() -> None:
    ctypes.string_at(0)


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def touch_and_wait(path: str, then: str) -> str:
    """Says that it runs, and goes on when it may."""
    Path(path).touch()
    while not Path(then).exists():
        time.sleep(0.002)
    return path


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.002)


class Unpicklable:
    def __reduce__(self) -> NoReturn:
        raise TypeError("this one stays here")


class Unreadable:
    def __reduce__(self) -> tuple[Any, ...]:
        return refuse, ()


def refuse() -> NoReturn:
    raise TypeError("cannot be read")


def gives(kind: type) -> object:
    return kind()


class NeedsTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


def raises_two() -> NoReturn:
    raise NeedsTwo(1, 2)


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(2) as made:
        yield made


class Pickled:
    """An argument that looks about while it is pickled, and may refuse to be."""

    def __init__(self, look: Callable[[], object], refused: bool = False) -> None:
        self.look = look
        self.refused = refused

    def __reduce__(self) -> tuple[Any, ...]:
        self.look()
        if self.refused:
            raise TypeError("this one stays here")
        return int, (7,)


# As every executor


def test_a_result_an_exception_and_its_remote_traceback(executor: Executor) -> None:
    assert executor.submit(add, 1, b=2).result() == 3
    future = executor.submit(raises)
    with pytest.raises(LookupError, match="not here") as caught:
        future.result()
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in raises" in str(caught.value.__cause__)
    assert future.exception() is caught.value
    assert isinstance(future, concurrent.futures.Future)


def test_wait_as_completed_and_callbacks(executor: Executor) -> None:
    futures = [executor.submit(add, i) for i in range(50)]
    assert sorted(f.result() for f in concurrent.futures.as_completed(futures)) == list(range(1, 51))
    more = [executor.submit(add, i) for i in range(50)] + [executor.submit(raises)]
    done, left = concurrent.futures.wait(more)
    assert (len(done), len(left)) == (51, 0)
    called: list[int] = []
    told = threading.Event()
    future = executor.submit(add, 5)
    future.add_done_callback(lambda f: (called.append(f.result()), told.set()))
    assert told.wait(30)  # nobody asks for the result
    assert called == [6]
    future.add_done_callback(lambda f: called.append(f.result()))
    assert called == [6, 6]


def test_a_callback_may_wait_for_another_future(executor: Executor) -> None:
    found: list[int] = []
    told = threading.Event()

    def callback(future: concurrent.futures.Future[int]) -> None:
        found.append(executor.submit(add, future.result()).result())
        told.set()

    executor.submit(add, 1).add_done_callback(callback)
    assert told.wait(30)
    assert found == [3]


def test_timeouts_leave_the_task_alone(executor: Executor) -> None:
    future = executor.submit(nap, 0.3)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    assert future.result(timeout=30) == 0.3


def test_map_keeps_order_with_chunks_and_without(executor: Executor) -> None:
    assert list(executor.map(add, range(5000))) == list(range(1, 5001))
    assert list(executor.map(add, range(1000), range(900), chunksize=7)) == [2 * i for i in range(900)]
    assert list(executor.map(add, [])) == []
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(add, [1], chunksize=0)
    with pytest.raises(TimeoutError):
        list(executor.map(nap, [0.5], timeout=0.01))


def test_map_takes_items_as_results_are_taken(executor: Executor) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(10_000):
            taken += 1
            yield i

    results = executor.map(add, items(), buffersize=10)
    assert [next(results) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert taken <= 16
    del results


def append(path: str, line: int) -> None:
    with open(path, "a") as file:
        file.write(f"{line}\n")


def test_a_map_whose_results_nobody_wants_is_done_all_the_same(tmp_path: Path) -> None:
    with Executor(2) as executor:
        executor.map(append, [str(tmp_path / "dropped")] * 2500, range(2500))
        kept = executor.map(append, [str(tmp_path / "kept")] * 2500, range(2500))
    assert (tmp_path / "dropped").read_text().count("\n") == 2500
    assert (tmp_path / "kept").read_text().count("\n") == 2500
    del kept


def test_a_map_that_is_refused_makes_no_tasks_when_it_is_dropped() -> None:
    executor = Executor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(add, [1, 2, 3])
    gc.collect()  # what a finalizer raises fails the test


def test_the_end_of_the_program_does_a_map_whose_results_nobody_wants(tmp_path: Path) -> None:
    program = run_program(
        tmp_path,
        """
        def note(i):
            with open("done", "a") as file:
                print(i, file=file)

        ex = upcall.Executor(1)
        left = ex.map(note, range(2500))
        """,
        cwd=tmp_path,
    )
    out, err = program.communicate(timeout=60)
    assert (out, err, program.returncode) == ("", "", 0)
    assert (tmp_path / "done").read_text().split() == [str(i) for i in range(2500)]


class ClosedAfterTheLook:
    """In place of `Pool.closing`: once armed, the pool is closed just after its thread has seen that it is not."""

    armed = False

    def __get__(self, pool: Pool, owner: object) -> bool:
        seen: bool = vars(pool).get("closing", False)
        if self.armed and threading.current_thread() is pool.thread:
            self.armed = False
            pool.close()
        return seen

    def __set__(self, pool: Pool, value: bool) -> None:
        vars(pool)["closing"] = value


def test_a_shutdown_just_before_the_pool_sleeps_is_not_slept_through(monkeypatch: pytest.MonkeyPatch) -> None:
    closing = ClosedAfterTheLook()
    monkeypatch.setattr(Pool, "closing", closing, raising=False)
    executor = Executor(1)
    executor.submit(add, 1).result()
    pool = executor._pool
    assert pool is not None
    closing.armed = True
    pool.inbox.wake()
    pool.thread.join(30)
    alive = pool.thread.is_alive()
    executor.shutdown()
    assert not alive


def test_the_last_answer_that_comes_just_before_the_pool_looks_is_not_slept_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go = tmp_path / "began", tmp_path / "go"
    executor = Executor(1)
    last = executor.submit(touch_and_wait, str(began), str(go))
    pool = executor._pool
    assert pool is not None
    wait_for(began)
    tell = pool._tell

    def tell_as_the_answer_comes() -> None:
        tell()
        if pool.closing and not go.exists():
            go.touch()
            while not is_running(pool.segment.u64(map_at(pool.seg, 0)) & 15):
                time.sleep(0.002)

    monkeypatch.setattr(pool, "_tell", tell_as_the_answer_comes)
    pool.close()
    pool.thread.join(30)
    alive = pool.thread.is_alive()
    executor.shutdown(wait=False)
    assert (alive, last.result()) == (False, str(began))


def test_a_submit_that_meets_the_end_is_refused(executor: Executor) -> None:
    executor.submit(add, 1).result()
    submit = executor._submit
    assert submit is not None
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        submit(add, (1,), {})


def test_cancel_takes_back_what_no_worker_has(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with Executor(1) as executor:
        runs = executor.submit(touch_and_wait, str(tmp_path / "runs"), str(go))
        waits = [executor.submit(append, str(tmp_path / "never"), i) for i in range(2000)]
        wait_for(tmp_path / "runs")
        assert runs.running()
        assert not runs.cancel()
        assert not waits[0].running()
        assert waits[0].cancel()
        assert waits[0].cancel()
        assert waits[-1].cancel()  # that one has not even left this process
        assert all(f.cancelled() and f.done() for f in (waits[0], waits[-1]))
        done, _ = concurrent.futures.wait([waits[0]], timeout=30)
        assert done
        with pytest.raises(concurrent.futures.CancelledError):
            waits[0].result()
        assert all(f.cancel() for f in waits)
        go.touch()
        assert runs.result() == str(tmp_path / "runs")
        assert not runs.running()
        assert not runs.cancel()
        assert executor.submit(add, 1).result() == 2
    assert not (tmp_path / "never").exists()


def test_shutdown_finishes_or_cancels(tmp_path: Path) -> None:
    executor = Executor(1)
    futures = [executor.submit(nap, 0.02) for _ in range(5)]
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(add, 1)
    assert [f.result() for f in futures] == [0.02] * 5
    executor.shutdown()
    executor = Executor(1)
    first = executor.submit(touch_and_wait, str(tmp_path / "runs"), str(tmp_path / "go"))
    rest = [executor.submit(add, i) for i in range(100)]
    wait_for(tmp_path / "runs")
    executor.shutdown(wait=False, cancel_futures=True)
    (tmp_path / "go").touch()
    assert first.result()
    assert all(f.cancelled() for f in rest)
    executor.shutdown()
    Executor(3).shutdown()  # never used: nothing was started
    wait_until_gone()


def test_an_executor_ends_when_the_last_answer_is_taken_by_who_waits_for_it() -> None:
    for _ in range(10):
        executor = Executor(1)
        future = executor.submit(add, 1)
        executor.shutdown(wait=False)
        assert future.result() == 2
        wait_until_gone()


def wait_until_gone() -> None:
    """`shutdown(wait=False)` ends by itself."""
    for thread in threading.enumerate():
        if thread.name.startswith("executor-"):
            thread.join(30)
            assert not thread.is_alive()


def test_many_threads_and_an_event_loop(executor: Executor) -> None:
    found: list[int] = []

    def client(start: int) -> None:
        found.extend(executor.submit(add, i).result() for i in range(start, start + 200))

    threads = [threading.Thread(target=client, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(1000 * i + j + 1 for i in range(4) for j in range(200))

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with pytest.raises(LookupError):
            await loop.run_in_executor(executor, raises)
        return await asyncio.gather(*(loop.run_in_executor(executor, add, i) for i in range(300)))

    assert asyncio.run(main()) == list(range(1, 301))


def nested(depth: int) -> int:
    if depth == 0:
        return NUMBER
    with Executor(1) as inner:
        return int(inner.submit(nested, depth - 1).result())


def test_a_task_may_have_an_executor_of_its_own(executor: Executor) -> None:
    assert executor.submit(nested, 2).result() == NUMBER


def test_wrong_arguments_say_what_is_wrong() -> None:
    for arguments, text in (
        ({"max_workers": 0}, "max_workers=0"),
        ({"max_retries": 15}, "max_retries=15"),
        ({"on_death": "pray"}, "on_death='pray'"),
        ({"mp_context": "thread"}, "mp_context='thread'"),
        ({"mp_context": 3}, "mp_context=3"),
        ({"max_tasks_per_child": 0}, "max_tasks_per_child=0"),
    ):
        with pytest.raises(ValueError, match=text):
            Executor(**arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_workers='2'"):
        Executor("2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="initializer"):
        Executor(initializer=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="initargs=3"):
        Executor(initargs=3)  # type: ignore[arg-type]


# Deaths


@pytest.mark.parametrize(
    ("end", "arguments", "number", "code"),
    [(kill_self, (), 9, None), (os._exit, (3,), None, 3), (segfault, (), 11, None)],
)
def test_a_death_costs_the_task_in_hand_only(
    end: Callable[..., None], arguments: tuple[int, ...], number: int | None, code: int | None
) -> None:
    with Executor(2) as executor:
        before = [executor.submit(add, i) for i in range(500)]
        dies = executor.submit(end, *arguments)
        after = [executor.submit(add, i) for i in range(500)]
        with pytest.raises(upcall.WorkerDied, match=end.__name__) as caught:
            dies.result(60)
        assert (caught.value.signal, caught.value.exitcode) == (number, code)
        assert caught.value.pid
        assert caught.value.pid != os.getpid()
        assert [f.result(60) for f in before + after] == [i + 1 for i in range(500)] * 2
        assert executor.submit(add, 1).result() == 2


def dies_at_first(path: str, times: int) -> int:
    with open(path, "a") as file:
        file.write("x")
    tries = os.path.getsize(path)
    if tries <= times:
        kill_self()
    return tries


def test_retries_end(tmp_path: Path) -> None:
    with Executor(1, on_death="retry", max_retries=2) as executor:
        good = executor.submit(dies_at_first, str(tmp_path / "good"), 2)
        bad = executor.submit(functools.partial(dies_at_first, str(tmp_path / "bad")), times=99)
        assert good.result(60) == 3
        with pytest.raises(upcall.WorkerDied, match=r"dies_at_first\('.*bad', times=99\)"):
            bad.result(60)
    assert (tmp_path / "bad").read_text() == "xxx"


def test_workers_killed_under_load_lose_nothing() -> None:
    """Every future ends: with its result, or with the death of the worker that had it."""
    with Executor(2) as executor:
        stop = threading.Event()
        killed = 0

        def killer() -> None:
            nonlocal killed
            while not stop.wait(0.05):
                with contextlib.suppress(ProcessLookupError, upcall.WorkerDied):
                    os.kill(executor.submit(pid).result(30), signal.SIGKILL)
                    killed += 1

        thread = threading.Thread(target=killer)
        thread.start()
        try:
            futures = [executor.submit(add, i) for i in range(60_000)]
            died = 0
            for i, future in enumerate(futures):
                try:
                    assert future.result(60) == i + 1
                except upcall.WorkerDied:
                    died += 1
        finally:
            stop.set()
            thread.join()
        assert killed
        assert died <= killed


def test_the_supervisor_killed_is_a_pause(executor: Executor) -> None:
    assert executor.submit(add, 1).result() == 2
    assert executor._pool is not None
    futures = [executor.submit(add, i) for i in range(3000)]
    os.kill(executor._pool.background.pid, signal.SIGKILL)
    futures += [executor.submit(add, i) for i in range(3000)]
    assert [f.result(60) for f in futures] == [i + 1 for i in range(3000)] * 2


def test_supervisors_that_are_killed_again_and_again_are_pauses_while_tasks_are_done(executor: Executor) -> None:
    executor.submit(add, 1).result()
    pool = executor._pool
    assert pool is not None
    futures = [executor.submit(nap, 0.01) for _ in range(400)]
    for round in range(STARTS_MAX + 2):
        before = pool.background
        done = sum(future.done() for future in futures)
        os.kill(before.pid, signal.SIGKILL)
        while pool.background is before and pool.broken is None:
            time.sleep(0.002)
        while sum(future.done() for future in futures) == done:
            time.sleep(0.002)
        assert pool.broken is None, round
    assert [future.result(60) for future in futures] == [0.01] * 400


def test_an_executor_whose_supervisors_all_died_leaves_nothing() -> None:
    """Files and processes: the fixture `nothing_left` looks."""
    with Executor(2) as executor:
        future = executor.submit(nap, 600)
        pool = executor._pool
        assert pool is not None
        for _ in range(STARTS_MAX + 1):
            before = pool.background
            os.kill(before.pid, signal.SIGKILL)
            while pool.background is before and pool.broken is None:
                time.sleep(0.002)
        with pytest.raises(UpcallError, match="in a row"):
            future.result(60)


def test_a_stopped_worker_keeps_its_own_task_only(executor: Executor) -> None:
    stopped = executor.submit(kill_self, signal.SIGSTOP)
    assert [f.result(60) for f in [executor.submit(add, i) for i in range(200)]] == list(range(1, 201))
    pids = {executor.submit(pid).result() for _ in range(20)}
    assert len(pids) == 1
    assert not stopped.done()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    workers = [
        int(child)
        for supervisor in children
        for child in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    ]
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    assert stopped.result(30) is None


def hang_once(path: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    while not Path(path + ".go").exists():
        time.sleep(0.005)


def test_a_hanging_initializer_holds_its_own_task_only(tmp_path: Path) -> None:
    with Executor(2, initializer=hang_once, initargs=(str(tmp_path / "once"),)) as executor:
        futures = [executor.submit(add, i) for i in range(50)]
        done = []
        for future in concurrent.futures.as_completed(futures, 60):
            done.append(future)
            if len(done) == 49:
                break
        (tmp_path / "once.go").touch()
        assert sorted(f.result(60) for f in futures) == list(range(1, 51))


def test_a_failing_initializer_fails_the_task_that_it_was_for() -> None:
    with Executor(1, initializer=raises) as executor:
        for _ in range(3):
            with pytest.raises(LookupError, match="not here") as caught:
                executor.submit(add, 1).result(60)
            assert any("initializer" in note for note in caught.value.__notes__)


# What cannot be sent


def test_what_cannot_be_pickled_fails_its_own_future(executor: Executor) -> None:
    assert isinstance(executor.submit(lambda: 1).exception(), (pickle.PicklingError, AttributeError))
    assert isinstance(executor.submit(add, Unpicklable()).exception(), TypeError)
    assert isinstance(executor.submit(gives, Unpicklable).exception(), TypeError)
    unreadable = executor.submit(add, Unreadable())
    with pytest.raises(TypeError, match="cannot be read"):
        unreadable.result()
    with pytest.raises(TypeError, match="cannot be read") as caught:
        executor.submit(gives, Unreadable).result()
    assert any("unpickled" in note for note in caught.value.__notes__)
    with pytest.raises(TypeError, match="two"):
        executor.submit(raises_two).result()
    assert executor.submit(add, 1).result() == 2


def test_too_large_is_an_error_and_memory_says_how_much() -> None:
    with Executor(1, memory="16 MiB") as executor:
        assert len(executor.submit(bytes, 3 << 20).result()) == 3 << 20
        with pytest.raises(upcall.MailboxFull, match="Executor\\(memory="):
            executor.submit(len, bytes(30 << 20)).result()
        with pytest.raises(upcall.MailboxFull, match="Executor\\(memory="):
            executor.submit(bytes, 30 << 20).result()
        # More than fits at once, and all of it kept: what is kept is copied out in time.
        kept = [f.result(60) for f in [executor.submit(bytes, 1 << 20) for _ in range(40)]]
        assert sum(map(len, kept)) == 40 << 20
        assert executor.submit(len, bytes(2 << 20)).result() == 2 << 20


def buffers(one: bytes, two: bytearray, three: memoryview) -> tuple[Any, ...]:
    return type(one).__name__, type(two).__name__, type(three).__name__, three.readonly, one == two == three


def test_buffers_arrive_as_what_they_were(executor: Executor) -> None:
    data = os.urandom(300_000)
    for piece in (data, data[:100]):
        found = executor.submit(buffers, piece, bytearray(piece), memoryview(piece)).result()
        assert found == ("bytes", "bytearray", "memoryview", True, True)
    assert executor.submit(memoryview, data).result() == data
    assert executor.submit(bytes, memoryview(data)[::2]).result() == data[::2]


def describe(array: Any) -> tuple[Any, ...]:
    return array.flags.writeable, array.shape, float(array.sum()), not array.flags.owndata


def test_arrays_are_views_of_the_segment(executor: Executor, lacks: Callable[[str], NoReturn]) -> None:
    try:
        import numpy as np
    except ImportError:
        lacks("numpy")
    array = np.arange(1_000_000.0).reshape(1000, 1000)
    assert executor.submit(describe, array).result() == (False, (1000, 1000), array.sum(), True)
    assert executor.submit(describe, array.T).result()[1:3] == ((1000, 1000), array.sum())
    back = executor.submit(np.add, array, 1).result()
    assert (back == array + 1).all()
    assert not back.flags.writeable
    view = back[3:5]
    del back
    assert (view == array[3:5] + 1).all()
    # Kept by the worker beyond the task: still whole after many others.
    assert executor.submit(np.sum, array[::2]).result() == array[::2].sum()


# Starting


def test_spawned_workers_import_the_program(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, threading, upcall

            def where(x):
                return __name__, x, threading.active_count()

            def begin(value):
                global begun
                begun = value

            def began():
                return begun

            if __name__ == "__main__":
                with upcall.Executor(2, mp_context=sys.argv[1], initializer=begin, initargs=(5,)) as ex:
                    print(ex.submit(where, 3).result())
                    print(ex.submit(began).result())
            """
        )
    )
    for method, name in (("spawn", "__mp_main__"), ("forkserver", "__mp_main__"), ("fork", "__main__")):
        done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == (f"('{name}', 3, 1)\n5\n", "")
    script.write_text(
        "import upcall\nwith upcall.Executor(1, mp_context='spawn') as ex:\n    ex.submit(abs, 1).result()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert "if __name__ == '__main__'" in done.stderr


def test_a_spawned_supervisor_that_dies_before_it_has_read_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    executor = Executor(1, mp_context="spawn", initializer=len, initargs=(bytes(1 << 20),))  # more than a pipe holds
    with pytest.raises(UpcallError, match="did not start"):
        executor.submit(add, 1)


def test_a_worker_does_so_many_tasks(capfd: pytest.CaptureFixture[str]) -> None:
    with Executor(1, max_tasks_per_child=3) as executor:
        pids = [executor.submit(pid).result(60) for _ in range(9)]
    assert [pids.count(found) for found in dict.fromkeys(pids)] == [3, 3, 3]
    assert capfd.readouterr().err == ""


def test_closures_with_cloudpickle(lacks: Callable[[str], NoReturn]) -> None:
    try:
        import cloudpickle  # noqa: F401
    except ImportError:
        lacks("cloudpickle")
    with Executor(1, cloudpickle=True) as executor:
        number = 4
        assert executor.submit(lambda x: x * number, 3).result() == 12
        number = 5
        assert executor.submit(lambda x: x * number, 3).result() == 15
        assert executor.submit(lambda: lambda: number).result()() == 5


def test_a_forked_child_is_told(executor: Executor) -> None:
    future = executor.submit(nap, 0.2)
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(upcall.ForkedHandle):
            executor.submit(add, 1)
            code = 2
        if code == 1:
            with contextlib.suppress(upcall.ForkedHandle):
                future.result()
                code = 3
        executor.shutdown()
        os._exit(0 if code == 1 else code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert future.result() == 0.2


def test_a_forked_child_drops_its_copies_of_maps_in_silence(tmp_path: Path) -> None:
    program = run_program(
        tmp_path,
        """
        ex = upcall.Executor(1)
        begun, not_begun = ex.map(abs, range(50)), ex.map(abs, range(2500))
        assert next(begun) == 0
        child = os.fork()
        if child == 0:
            del begun, not_begun
            os._exit(0)
        os.waitpid(child, 0)
        assert sum(begun) == sum(range(50))
        assert sum(not_begun) == sum(range(2500))
        """,
    )
    out, err = program.communicate(timeout=60)
    assert (out, err, program.returncode) == ("", "", 0)


def run_program(tmp_path: Path, body: str, **options: Any) -> subprocess.Popen[str]:
    script = tmp_path / "program.py"
    script.write_text("import os, signal, sys, time, upcall\n" + textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, *FORK_BESIDE_THREADS, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_the_end_of_the_program_waits_for_all_tasks(tmp_path: Path) -> None:
    program = run_program(
        tmp_path,
        """
        def slow(i):
            time.sleep(0.02)
            print(i, flush=True)

        ex = upcall.Executor(1)
        for i in range(5):
            ex.submit(slow, i)
        """,
    )
    out, err = program.communicate(timeout=60)
    assert (out, err, program.returncode) == ("0\n1\n2\n3\n4\n", "", 0)


def test_ctrl_c_in_result_ends_everything(tmp_path: Path) -> None:
    program = run_program(
        tmp_path,
        """
        def forever():
            print("runs", flush=True)
            time.sleep(1000)

        with upcall.Executor(1) as ex:
            ex.submit(forever).result()
        """,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "runs\n"
    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    assert program.returncode == -signal.SIGINT


def test_a_parent_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    program = run_program(
        tmp_path,
        """
        def forever():
            print(os.getpid(), flush=True)
            time.sleep(1000)

        ex = upcall.Executor(2)
        ex.submit(forever)
        ex.submit(forever).result()
        """,
    )
    assert program.stdout is not None
    workers = [int(program.stdout.readline()) for _ in range(2)]
    pidfds = [os.pidfd_open(worker) for worker in workers]
    program.kill()
    program.communicate(timeout=60)
    from upcall.host.settle import wait_for_end

    for pidfd in pidfds:
        assert wait_for_end(pidfd, 30_000)
        os.close(pidfd)
    folder = Path(os.environ["UPCALL_DIR"])
    end = time.monotonic() + 30
    while list(folder.glob("executor-*")) and time.monotonic() < end:
        time.sleep(0.01)
    assert not list(folder.glob("executor-*"))


def test_an_executor_whose_workers_cannot_be_had_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with Executor(1) as executor:
        assert executor.submit(add, 1).result() == 2
        pool = executor._pool
        assert pool is not None

        def no_more(*_: object) -> NoReturn:
            raise upcall.SegmentError("no room for another one")

        monkeypatch.setattr("upcall.executor.pool.start_child", no_more)
        waits = executor.submit(nap, 60)
        while not waits.running():
            time.sleep(0.002)
        os.kill(pool.background.pid, signal.SIGKILL)
        with pytest.raises(upcall.SegmentError, match="another one"):
            waits.result(30)
        with pytest.raises(RuntimeError, match="another one"):
            executor.submit(add, 1)


def test_a_worker_wakes_up_while_its_task_is_pickled() -> None:
    """And if there is no task then, it sleeps again; none is lost."""
    with Executor(1) as executor:
        assert executor.submit(add, 1).result() == 2
        pool = executor._pool
        assert pool is not None
        segment = pool.remote.segment
        word, state = map_at(segment.seg, 0), segment.seg.procinfo + const.PI_STATE
        woken: list[bool] = []
        for round in range(20):
            while segment.u64(state) & 0xFF != const.P_WAITING or segment.u64(word) & 15 != const.VC_OFFLINE:
                time.sleep(0.002)  # also behind a task that could not be pickled: its worker does not stay awake
            asleep = segment.u64(word)
            future = executor.submit(
                add, Pickled(lambda asleep=asleep: woken.append(segment.u64(word) != asleep), refused=round % 2 == 0)
            )
            if round % 2:
                assert future.result(30) == 8
            else:
                with pytest.raises(TypeError, match="stays here"):
                    future.result(30)
        assert woken == [True] * 20


# Sleeping and waking: each thing happens at the one moment at which it could be missed


def pool_of(executor: Executor) -> Pool:
    executor.submit(add, 1).result()
    pool = executor._pool
    assert pool is not None
    return pool


def sleeps(pool: Pool) -> bool:
    """Whether the pool's thread sleeps on its vcore's word."""
    call = Path(f"/proc/self/task/{pool.thread.native_id}/syscall").read_text().split()
    return call[2:3] == ["0x0"]  # a FUTEX_WAIT that processes share: those of locks are private


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """No other thread gets the interpreter's lock before this one lets go of it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def answered(pool: Pool) -> None:
    """Waits for an answer, with the interpreter's lock: the pool's thread is woken for it and cannot take it."""
    while not is_running(pool.segment.u64(map_at(pool.seg, 0)) & 15):
        pass


class WaitsInCallback:
    """A callback that waits for another future, and is asleep in that."""

    def __init__(self, pool: Pool, after: concurrent.futures.Future[str], go: Path, what: Any) -> None:
        self.what = what
        self.begun, self.heard = threading.Event(), threading.Event()
        after.add_done_callback(self)
        go.touch()
        assert self.begun.wait(30)
        while not sleeps(pool):
            time.sleep(0.002)

    def __call__(self, _: object) -> None:
        self.begun.set()
        with contextlib.suppress(concurrent.futures.CancelledError):
            self.what.result()
        self.heard.set()


def test_a_callback_hears_that_the_future_it_waits_for_is_cancelled(tmp_path: Path) -> None:
    with Executor(1) as executor:
        pool = pool_of(executor)
        first = executor.submit(touch_and_wait, str(tmp_path / "first"), str(tmp_path / "go"))
        busy = executor.submit(touch_and_wait, str(tmp_path / "busy"), str(tmp_path / "end"))
        what = executor.submit(add, 1)
        callback = WaitsInCallback(pool, first, tmp_path / "go", what)
        wait_for(tmp_path / "busy")
        while not sleeps(pool):
            time.sleep(0.002)
        assert what.cancel()
        heard = callback.heard.wait(30)
        (tmp_path / "end").touch()
        assert heard
        assert busy.result()


def test_a_task_that_is_taken_back_when_its_answer_is_there_already_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker has died behind its answer, so its event waits again. Nothing more was sent to the workers after that."""
    with Executor(1) as executor:
        pool = pool_of(executor)
        begun, go = threading.Event(), threading.Event()
        first = executor.submit(touch_and_wait, str(tmp_path / "first"), str(tmp_path / "go"))
        first.add_done_callback(lambda _: (begun.set(), go.wait(30)))
        (tmp_path / "go").touch()
        assert begun.wait(30)
        future, other = executor.submit(add, 1), executor.submit(add, 2)
        future.add_done_callback(lambda _: None)
        while not pool.inbox.slow:
            with contextlib.suppress(TimeoutError):
                other.result(0.001)
        monkeypatch.setattr(pool, "_take", lambda number: True)
        assert future.cancel()
        go.set()
        assert executor.submit(add, 3).result(30) == 4


class LetGo:
    """An argument that calls something when the program has no use for it any more."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (7,)

    def __del__(self) -> None:
        self.call()


def test_a_callback_hears_of_an_answer_that_another_thread_has_taken(tmp_path: Path) -> None:
    with Executor(2) as executor:
        pool = pool_of(executor)
        queue = next(iter(tables.queues(pool.segment)))
        mbox = pool.segment.u32(evq_at(pool.seg, queue) + const.EVQ_MBOX) - 1
        what = executor.submit(touch_and_wait, str(tmp_path / "what"), str(tmp_path / "end"))
        wait_for(tmp_path / "what")
        first = executor.submit(touch_and_wait, str(tmp_path / "first"), str(tmp_path / "go"))
        callback = WaitsInCallback(pool, first, tmp_path / "go", what)

        def another_answer() -> None:
            (tmp_path / "end").touch()
            while not any(m.word & 15 == const.READY for m in messages(pool.segment, mbox)) or not sleeps(pool):
                time.sleep(0.002)

        with alone():
            other = executor.submit(add, LetGo(another_answer))
            answered(pool)
            assert other.result() == 8
        heard = callback.heard.wait(30)
        pool.inbox.wake()
        assert heard


def test_an_executor_does_not_end_between_an_answer_and_its_telling() -> None:
    """Before Python 3.12 the collector may run, and with it any code, wherever an object is made."""
    executor = Executor(1)
    pool = pool_of(executor)
    told = threading.Event()

    def end(*_: object) -> None:
        inbox = pool.inbox
        if threading.current_thread() is threading.main_thread() and not (inbox.futures or inbox.slow or future.done()):
            gc.callbacks.remove(end)
            executor.shutdown()

    before = gc.get_threshold()
    with alone():
        future = executor.submit(bytes, 1 << 20)
        future.add_done_callback(lambda _: told.set())
        answered(pool)
        gc.callbacks.append(end)
        gc.set_threshold(1)
        try:
            result = future.result(30)
        finally:
            gc.set_threshold(*before)
            with contextlib.suppress(ValueError):
                gc.callbacks.remove(end)
    executor.shutdown()
    assert result == bytes(1 << 20)
    assert told.is_set()


def test_an_executor_does_not_end_between_a_failure_and_its_telling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = Executor(1, memory="16 MiB")
    pool = pool_of(executor)
    told = threading.Event()
    no_room = pool.no_room

    def no_room_and_the_end(*arguments: int) -> Exception:
        pool.close()
        while pool.thread.is_alive() and not sleeps(pool):
            time.sleep(0.002)
        return no_room(*arguments)

    monkeypatch.setattr(pool, "no_room", no_room_and_the_end)
    first = executor.submit(touch_and_wait, str(tmp_path / "first"), str(tmp_path / "go"))
    wait_for(tmp_path / "first")
    while alloc_block(pool.inbox.out.s, 1 << 20):
        pass  # somebody has taken all the room, and keeps it
    large = executor.submit(len, bytes(2 << 20))
    large.add_done_callback(lambda _: told.set())
    while not sleeps(pool):
        time.sleep(0.002)
    (tmp_path / "go").touch()
    with alone():
        answered(pool)
        assert first.result()
    with pytest.raises(upcall.MailboxFull):
        large.result(30)
    assert told.wait(30)
    pool.thread.join(30)
    assert not pool.thread.is_alive()
    executor.shutdown()


def test_a_map_of_what_is_no_iterable(executor: Executor) -> None:
    with pytest.raises(TypeError):
        executor.map(add, 3)  # type: ignore[arg-type]
