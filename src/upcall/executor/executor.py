"""`Executor`: what `concurrent.futures` asks of one, in front of a `Pool`."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import pickle
import secrets
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, TypeVar

from ..host.segment import parse_size
from ..kern import const
from . import worker
from .future import Future
from .mapping import Mapped
from .pool import Pool
from .program import Config

T = TypeVar("T")
ON_DEATH = ("fail", "retry")
_numbers = itertools.count(1)
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
"""Those that run: their threads keep them."""
_mapping: weakref.WeakSet[Executor] = weakref.WeakSet()
"""Those whose `map` was called."""
_exiting = threading.Event()


class Executor(concurrent.futures.Executor):
    """A pool of worker processes that replaces `concurrent.futures.ProcessPoolExecutor`.

    `max_workers` how many (None: the CPUs this process may use); `mp_context` "fork", "spawn", "forkserver" or a context of
    multiprocessing (None: its default): with "fork" workers have what the program had at the first `submit`, with the other
    two they import its main module, from a fresh interpreter; `initializer(*initargs)` runs in each worker before its first
    task; `max_tasks_per_child` how many tasks a worker does before another takes its place.

    `on_death` what becomes of the one task that was in the hands of a worker when it died: "fail", its future raises
    `WorkerDied`; or "retry", it runs again, up to `max_retries` times (0..14), and then fails. Everything else goes on.

    `memory` for tasks and for results on their way, each ("512 MiB": used only as needed); a call or a result may take a
    quarter of it. `cloudpickle` True: calls and results are pickled with cloudpickle, lambdas and closures included.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        on_death: Literal["fail", "retry"] = "fail",
        max_retries: int = 2,
        memory: int | str = "512 MiB",
        cloudpickle: bool = False,
    ) -> None:
        workers = len(os.sched_getaffinity(0)) if max_workers is None else max_workers
        for name, value, least, most in (
            ("max_workers", workers, 1, const.MAX_VCORES),
            ("max_retries", max_retries, 0, const.REDELIVERIES_MAX),
            ("max_tasks_per_child", 1 if max_tasks_per_child is None else max_tasks_per_child, 1, 1 << 62),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}={value!r} must be an int, not {type(value).__name__}")
            if not least <= value <= most:
                raise ValueError(f"{name}={value} is outside {least}..{most}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer {initializer!r} must be callable")
        if not isinstance(initargs, Iterable):
            raise TypeError(f"initargs={initargs!r} must be a tuple of the initializer's arguments")
        if on_death not in ON_DEATH:
            raise ValueError(f"on_death={on_death!r} must be one of {', '.join(map(repr, ON_DEATH))}")
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            raise RuntimeError("upcall.Executor needs the interpreter's lock: run Python with -X gil=1")
        if cloudpickle:
            _check_cloudpickle()
        self._method = start_method(mp_context)
        self._max_workers = workers
        self._begin = None if initializer is None else (initializer, tuple(initargs))
        self._options = (parse_size(memory), max_retries if on_death == "retry" else 0, max_tasks_per_child or 0)
        self._cloudpickle = bool(cloudpickle)
        self._env: dict[str, str] = {}
        """What workers add to their environment before anything else: `upcall.joblib` limits threads so."""
        self._pool: Pool | None = None
        self._submit: Callable[[Any, Any, Any], Future] | None = None
        self._lock = threading.Lock()
        self._shut = False
        self._maps: weakref.WeakSet[Mapped] = weakref.WeakSet()
        self._pid = os.getpid()

    def _start(self) -> Callable[[Any, Any, Any], Future]:
        """The pool, made at the first task."""
        if worker.preparing.is_set():
            raise RuntimeError(
                "this program makes tasks while its main module is imported, so a worker that imports it would make them "
                "again: put what only the program itself is to do under if __name__ == '__main__'"
            )
        with self._lock:
            self._check()
            if self._pool is None:
                pool = Pool(self._config(), fork=self._method == "fork")
                self._pool = pool
                self._submit = pool.inbox.submit
                _pools.add(pool)
                weakref.finalize(self, _let_go, pool).atexit = False
            assert self._submit is not None
            return self._submit

    def _config(self) -> Config:
        memory, retries, tasks = self._options
        begin: Any = self._begin
        main = None
        if self._method != "fork":
            from multiprocessing import spawn

            main = spawn.get_preparation_data("worker")
            main["authkey"] = bytes(main["authkey"])
            if self._cloudpickle:
                import cloudpickle

                begin = cloudpickle.dumps(begin)
                # What is defined in the main module goes by value.
                main = {name: value for name, value in main.items() if not name.startswith("init_main_")}
            else:
                begin = pickle.dumps(begin)
        name = f"executor-{os.getpid()}-{next(_numbers)}-{secrets.token_hex(3)}"
        return Config(name, self._max_workers, memory, retries, tasks, self._cloudpickle, begin, main, self._env)

    def _check(self) -> None:
        if self._pool is not None:
            self._pool.check()
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exiting.is_set():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """A call of `fn` in a worker; its future. A call that cannot be pickled fails its own future. RuntimeError after
        `shutdown`, ForkedHandle in a forked child."""
        submit = self._submit
        if submit is None:
            submit = self._start()
        return submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """`fn` for each of the items, the results in their order. Items are taken, and tasks made, as results are: at most
        `buffersize` tasks (None: 2,000, of `chunksize` items each) are ahead. An iterator that nobody asks for anything does
        all its tasks, too; one that is left half-way cancels the rest. TimeoutError when a result is not there `timeout`
        seconds after the call."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and (isinstance(buffersize, bool) or not isinstance(buffersize, int)):
            raise TypeError(f"buffersize={buffersize!r} must be an int, or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize={buffersize} must be at least 1, or None")
        mapped = Mapped(self.submit, fn, iterables, timeout, chunksize, buffersize)
        self._maps.add(mapped)
        _mapping.add(self)
        return mapped

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more tasks. With `wait`, returns when all are done and every worker has ended; with `cancel_futures`, those
        that no worker has taken are cancelled. Interrupted (Ctrl-C) while it waits, it ends what runs."""
        if self._pid != os.getpid():
            return  # a forked child leaves its parent's `with` block, too
        if not cancel_futures:
            self._do_maps()
        with self._lock:
            self._shut = True
            self._submit = None
            pool, self._pool = self._pool, None
        if pool is None:
            return
        if cancel_futures:
            for future in [*pool.inbox.overflow, *pool.inbox.futures.values()]:
                future.cancel()
        pool.close()
        if wait:
            _wait_for(pool)

    def _end(self) -> None:
        """Ends everything at once: what runs fails with WorkerDied."""
        self._maps.clear()
        if self._pool is not None and self._pid == os.getpid():
            self._pool.kill()
        self.shutdown(wait=True)

    def _do_maps(self) -> None:
        """The tasks of iterators that nobody has asked for anything."""
        if self._pid == os.getpid():
            for mapped in list(self._maps):
                mapped.do_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        """Waits for all tasks; on Ctrl-C it ends them."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._end()
        else:
            self.shutdown(wait=True)
        return False

    def __repr__(self) -> str:
        return f"<upcall.Executor max_workers={self._max_workers}>"


def start_method(context: Any) -> str:
    """ "fork" or "spawn", of what was given as `mp_context`."""
    if context is None:
        import multiprocessing

        context = multiprocessing
    given = context.get_start_method() if hasattr(context, "get_start_method") else context
    if given not in ("fork", "spawn", "forkserver"):
        raise ValueError(
            f"mp_context={context!r} must be 'fork', 'spawn', 'forkserver', or a context of multiprocessing"
        )
    return "fork" if given == "fork" else "spawn"


def _check_cloudpickle() -> None:
    try:
        import cloudpickle  # noqa: F401
    except ImportError:
        raise ImportError("Executor(cloudpickle=True) needs the package cloudpickle: pip install cloudpickle") from None


def _wait_for(pool: Pool) -> None:
    try:
        pool.thread.join()
    except KeyboardInterrupt:
        pool.kill()
        pool.thread.join()
        raise


def _let_go(pool: Pool) -> None:
    """The program has dropped its executor: what is under way is finished."""
    if pool.pid == os.getpid():
        pool.close()


def _at_exit() -> None:
    """As for the standard executors, the program's end waits for all tasks."""
    for executor in list(_mapping):
        executor._do_maps()
    _exiting.set()
    for pool in [pool for pool in _pools if pool.pid == os.getpid()]:
        pool.close()
    for pool in [pool for pool in _pools if pool.pid == os.getpid()]:
        _wait_for(pool)


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
