"""Executors: no-op tasks, round trips, an array, a long map. upcall's own column does the same jobs (`own/tasks`).

Each run is a fresh process that may use all CPUs, as its workers may. `multiprocessing.Pool` has no futures: its
`apply_async` and `imap` stand for `submit` and `map`.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import resource
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

from ..measure import Placing, Role, count_for, cpus, run_roles
from ..sample import MESSAGE, Measurement, Sample, System
from .job import WARM_UP, Peer, joined, sampled
from .link import missing

OUTSTANDING: Final = 1000
ARRAY_BYTES: Final = 8 << 20
DEADLINE_S: Final = 120.0
PAUSE_S: Final = 0.003
"""Longer than anybody looks before it sleeps."""

Make = Callable[[int], AbstractContextManager[Any]]
"""Makes an executor with so many workers."""


def noop() -> None:
    """The task."""


def same(number: int) -> int:
    """An item's task."""
    return number


def total(array: Any) -> float:
    """The array's task."""
    return float(array.sum())


def rows(name: str, make: Make, *, tasks: int, items: int) -> Mapping[str, Measurement]:
    """The rows of an executor; `tasks` and `items` are how many a full run does."""
    return {
        "tasks-1": _measured("tasks-1", name, make, 1, partial(_rate, full=tasks)),
        "tasks-2": _measured("tasks-2", name, make, 2, partial(_rate, full=tasks)),
        "task-polling": _measured("task-polling", name, make, 1, partial(_trips, full=2000, pause=0.0)),
        "task-parked": _measured("task-parked", name, make, 1, partial(_trips, full=300, pause=PAUSE_S)),
        "task-array": _measured("task-array", name, make, 1, _arrays),
        "map-million": _measured("map-million", name, make, 2, partial(_map, full=items)),
    }


def pipe_trip(name: str, *, apart: bool) -> Measurement:
    """Beside `task-parked`: 16 bytes through a pipe to another Python process, and back, in the same way. `apart`: each on
    a CPU of its own, as a program and its worker are where tasks are to run in parallel; else where the kernel likes, which
    has both take turns on one CPU if the two do not share a cache."""
    placing = Placing.of() if apart else None
    return _measured("task-parked", name, partial(_echo, placing), 1, partial(_trips, full=300, pause=PAUSE_S), placing)


@contextmanager
def _echo(placing: Placing | None, _workers: int) -> Iterator[Any]:
    """No executor: a child that sends back what it gets."""
    (there, out), (into, back) = os.pipe(), os.pipe()
    child = os.fork()
    if placing is not None:
        os.sched_setaffinity(0, {placing.senders[0] if child else placing.receiver})
    if child == 0:
        os.close(out)
        while data := os.read(there, len(MESSAGE)):
            os.write(back, data)
        os._exit(0)
    os.close(there)
    os.close(back)

    class Echo:
        def submit(self, _function: object) -> Any:
            os.write(out, MESSAGE)
            return self

        def result(self) -> bytes:
            return os.read(into, len(MESSAGE))

    try:
        yield Echo()
    finally:
        os.close(out)
        os.waitpid(child, 0)
        os.close(into)


def _measured(
    row: str,
    name: str,
    make: Make,
    workers: int,
    job: Callable[[Any, float], tuple[list[float], str]],
    placing: Placing | None = None,
) -> Measurement:
    def measure(scale: float) -> Sample:
        notes: set[str] = set()

        def body() -> tuple[list[float], str]:
            os.sched_setaffinity(0, set(cpus_here))
            with make(workers) as pool:
                pool.submit(noop).result()
                return job(pool, scale)

        def run() -> Iterable[float]:
            values: list[float]
            ((values, note),) = run_roles([Role("the program", cpus_here[0], body)], DEADLINE_S)
            notes.add(note)
            return values

        cpus_here = cpus()
        found = sampled(row, name, Placing.of(), scale, run, "", with_p99=row.startswith("task-"))
        note = joined(found.note, *sorted(notes))
        where = f"any of cpu{cpus_here}" if placing is None else str(placing)
        return Sample(**{**vars(found), "pinning": where, "note": note})

    return measure


def _rate(pool: Any, scale: float, full: int) -> tuple[list[float], str]:
    """Tasks per second, twice."""
    count = count_for(full, scale, 200)
    found = []
    for _ in range(2):
        waiting: deque[Any] = deque()
        begin = time.perf_counter()
        submit = pool.submit
        for _ in range(count):
            if len(waiting) >= OUTSTANDING:
                waiting.popleft().result()
            waiting.append(submit(noop))
        while waiting:
            waiting.popleft().result()
        found.append(count / (time.perf_counter() - begin))
    return found, f"{count} tasks"


def _trips(pool: Any, scale: float, full: int, pause: float) -> tuple[list[float], str]:
    found = []
    for i in range(WARM_UP + count_for(full, scale, 20)):
        if pause:
            time.sleep(pause)
        begin = time.perf_counter_ns()
        pool.submit(noop).result()
        if i >= WARM_UP:
            found.append((time.perf_counter_ns() - begin) / 1e3)
    return found, f"{pause * 1e3:g} ms between" if pause else "at once"


def _arrays(pool: Any, scale: float) -> tuple[list[float], str]:
    import numpy as np

    array = np.ones(ARRAY_BYTES // 8)
    found = []
    for i in range(3 + count_for(50, scale, 5)):
        begin = time.perf_counter_ns()
        assert pool.submit(total, array).result() == ARRAY_BYTES // 8
        if i >= 3:
            found.append((time.perf_counter_ns() - begin) / 1e3)
    return found, "numpy"


def _map(pool: Any, scale: float, full: int) -> tuple[list[float], str]:
    count = count_for(full, scale, 500)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    for expected, number in enumerate(pool.map(same, range(count))):
        assert number == expected
    rate = count / (time.perf_counter() - begin)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return [rate], f"{count} items; the program grew by {more:.0f} MiB"


class _Promise:
    """A result of `multiprocessing.Pool`."""

    def __init__(self, found: Any) -> None:
        self.result = found.get


class _Pool:
    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.map = pool.imap

    def submit(self, function: Callable[..., Any], *arguments: Any) -> _Promise:
        return _Promise(self._pool.apply_async(function, arguments))


@contextmanager
def _mp_pool(workers: int) -> Iterator[_Pool]:
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield _Pool(pool)


def _standard(workers: int) -> AbstractContextManager[Any]:
    return concurrent.futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))


def _loky(workers: int) -> AbstractContextManager[Any]:
    from loky import ProcessPoolExecutor

    made: AbstractContextManager[Any] = ProcessPoolExecutor(workers)
    return made


class _Ray:
    """`submit` as ray has it: a remote function for each function."""

    class Future:
        """An object reference."""

        def __init__(self, ray: Any, reference: Any) -> None:
            self._ray, self._reference = ray, reference

        def result(self) -> Any:
            return self._ray.get(self._reference)

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._remote: dict[Callable[..., Any], Any] = {}

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        if function not in self._remote:
            self._remote[function] = self._ray.remote(function)
        return self.Future(self._ray, self._remote[function].remote(*arguments))


@contextmanager
def _ray(workers: int) -> Iterator[_Ray]:
    """A cluster of its own on this machine, which leaves no files and tells nobody of its use."""
    # The token would be made, and kept, in the home directory.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    # In /tmp, as ray's own: the names of its sockets would soon be too long elsewhere.
    with tempfile.TemporaryDirectory(prefix="upcall-bench-", dir="/tmp") as folder:
        ray.init(
            num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False, _temp_dir=folder
        )
        try:
            yield _Ray(ray)
        finally:
            ray.shutdown()


def without_numpy(found: Mapping[str, Measurement]) -> Mapping[str, Measurement]:
    """The rows that can be measured here."""
    return {row: measure for row, measure in found.items() if row != "task-array" or find_spec("numpy")}


def systems() -> list[System]:
    """The executors."""

    # The rest of its rows would take minutes: a cluster's start takes ten seconds, each time.
    rays = {
        row: measure for row, measure in rows("ray", _ray, tasks=5_000, items=0).items() if row.startswith("tasks-")
    }

    return [
        Peer("ProcessPoolExecutor", without_numpy(rows("ProcessPoolExecutor", _standard, tasks=10_000, items=20_000))),
        Peer("mp.Pool", without_numpy(rows("mp.Pool", _mp_pool, tasks=20_000, items=50_000))),
        Peer("loky", without_numpy(rows("loky", _loky, tasks=5_000, items=10_000)), partial(missing, "loky")),
        Peer("ray", rays, partial(missing, "ray")),
    ]
