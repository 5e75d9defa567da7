"""The peers of `upcall bench`: each does its job, and a measurement ends and leaves nothing, whatever comes.

No time is asserted here: these are tests of the measuring, not measurements.
"""

from __future__ import annotations

import json
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from upcall.bench.measure import Board, Hung, Placing, Role, RoleFailed, median, p99, run_roles
from upcall.bench.peers import systems
from upcall.bench.peers.job import sampled
from upcall.bench.sample import MESSAGE, ROWS, Sample, System, batch_of

TINY = 0.001
SYSTEMS = {system.name: system for system in systems()}
ALWAYS = (
    "pipe",
    "pipe apart",
    "eventfd",
    "semaphore",
    "mp.Pipe",
    "mp.SimpleQueue",
    "mp.Queue",
    "signal",
    "ProcessPoolExecutor",
    "mp.Pool",
)
OWN_ROWS = {"idle-cpu", "worker-memory"}
"""Rows that say what upcall itself costs: no peer does a comparable job."""
CASES = [(name, row) for name, system in SYSTEMS.items() for row in system.rows()]


def what_is_held() -> tuple[set[Path], int]:
    """The bench's own files, in shared memory and among the temporary ones, and how many descriptors are open."""
    files = {path for folder in ("/dev/shm", tempfile.gettempdir()) for path in Path(folder).glob("*upcall-bench-*")}
    return files, sum(map(is_ours, os.listdir("/proc/self/fd")))


def is_ours(fd: str) -> bool:
    """Is this descriptor open, and not one of multiprocessing's heap, which a process keeps once it has shared a value?

    faster-fifo shares some.
    """
    try:
        return "/pym-" not in os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:  # the listing's own
        return False


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    """Fails a test after which a file, a mapping's file or a descriptor is left (processes: `nothing_left`)."""
    before = what_is_held()
    yield
    assert what_is_held() == before


def gone(pid: int) -> bool:
    """Is there no such process any more, not even as a zombie?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ---- the peers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "row"), CASES, ids=[f"{name}-{row}" for name, row in CASES])
def test_a_peer_does_its_rows(name: str, row: str, lacks: Callable[[str], NoReturn]) -> None:
    system = SYSTEMS[name]
    if why := system.available():
        assert name not in ALWAYS
        lacks(f"the peer {name} ({why})")
    sample = system.rows()[row](TINY)
    if name.startswith("C ") and Placing.of().shared and not sample.measured:
        lacks(f"a second CPU, which {name} needs ({sample.note})")
    assert sample.measured, sample.note
    assert (sample.row, sample.system, sample.unit) == (row, name, ROWS[row].unit)
    assert sample.median > 0
    assert sample.runs == 1
    assert "cpu" in sample.pinning
    if ROWS[row].per_second:
        assert sample.p99 is None
    else:
        assert sample.p99 is not None
        assert sample.p99 >= sample.median


def test_names_are_those_of_the_table() -> None:
    assert len(SYSTEMS) == len(systems())
    assert {row for _, row in CASES} == set(ROWS) - OWN_ROWS


def test_every_row_has_a_peer_on_every_machine() -> None:
    assert {row for name, row in CASES if name in ALWAYS} == set(ROWS) - OWN_ROWS


def test_a_missing_peer_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_module: str) -> None:
        return None

    monkeypatch.setattr("upcall.bench.peers.link.find_spec", none)
    missing = {name: why for name, system in SYSTEMS.items() if (why := system.available())}
    optional = ("pyzmq", "iceoryx2", "iceoryx2 event", "faster-fifo", "loky", "ray")
    assert set(optional) <= set(missing)
    for name in optional:
        assert missing[name].endswith("pip install 'upcall[bench]'")


def test_systems_are_systems() -> None:
    found: list[System] = systems()
    for system in found:
        assert set(system.rows()) <= set(ROWS)


def test_a_batch_has_no_equal_messages() -> None:
    batch = batch_of(1024)
    assert len(set(batch)) == 1024
    assert {len(message) for message in batch} == {len(MESSAGE)}


# ---- runs that go wrong -------------------------------------------------------------------------------------------


def write_pid_and_sleep(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(1000)


def test_a_hung_role_is_killed_and_named(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    cpu = Placing.of().receiver
    roles = [Role("quick", cpu, lambda: 1), Role("sleeper", cpu, partial(write_pid_and_sleep, file))]
    with pytest.raises(Hung, match=r"hung: sleeper not done after 0\.5 s"):
        run_roles(roles, 0.5)
    assert gone(int(file.read_text()))


def test_a_role_deaf_to_signals_is_killed_too(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def deaf() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        write_pid_and_sleep(file)

    with pytest.raises(Hung):
        run_roles([Role("deaf", Placing.of().receiver, deaf)], 0.5)
    assert gone(int(file.read_text()))


def test_a_failed_role_ends_the_others_at_once(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def fail() -> None:
        while not file.exists() or not file.read_text():
            time.sleep(0.001)
        raise ValueError("no such colour: 7")

    cpu = Placing.of().receiver
    with pytest.raises(RoleFailed, match=r"^painter: ValueError: no such colour: 7 \(test_bench_peers\.py:\d+\)$"):
        run_roles([Role("waiting", cpu, partial(write_pid_and_sleep, file)), Role("painter", cpu, fail)])
    assert gone(int(file.read_text()))


def test_a_role_that_dies_is_a_failure() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RoleFailed, match=r"^mortal ended without a result \(signal 9\)$"):
        run_roles([Role("mortal", Placing.of().receiver, die)])


def test_a_result_that_cannot_travel_is_a_failure() -> None:
    with pytest.raises(RoleFailed, match=r"^shy"):
        run_roles([Role("shy", Placing.of().receiver, lambda: lambda: None)])


def test_a_parent_that_is_killed_takes_its_roles_along(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    parent = os.fork()
    if parent == 0:
        try:
            run_roles([Role("orphan", Placing.of().receiver, partial(write_pid_and_sleep, file))])
        finally:
            os._exit(1)
    while not file.exists() or not file.read_text():
        time.sleep(0.001)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    orphan = int(file.read_text())
    while not gone(orphan):
        with suppress(ChildProcessError):  # unless this process adopts orphans, init has reaped it
            os.waitpid(orphan, os.WNOHANG)
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (lambda: time.sleep(1000), "hung: lonely not done after 0.3 s"),
        (lambda: 1 // 0, "failed: lonely: ZeroDivisionError: "),
    ],
    ids=["hung", "failed"],
)
def test_a_run_that_goes_wrong_is_a_sample_without_a_value(body: Callable[[], object], note: str) -> None:
    placing = Placing.of()
    sample = sampled(
        "send-bit", "x", placing, TINY, lambda: run_roles([Role("lonely", placing.receiver, body)], 0.3), "as planned"
    )
    assert not sample.measured
    assert sample.note.startswith(note)
    assert json.loads(json.dumps(sample.as_dict(), allow_nan=False))["median"] is None


def test_a_peer_that_cannot_be_set_up_is_a_sample_without_a_value() -> None:
    def broken() -> list[float]:
        raise AttributeError("module 'peer' has no attribute 'Queue'")

    sample = sampled("send-bit", "x", Placing.of(), TINY, broken, "as planned")
    assert not sample.measured
    assert sample.note.startswith("failed: AttributeError: module 'peer' has no attribute 'Queue'")


# ---- the small parts ----------------------------------------------------------------------------------------------


def test_roles_run_where_they_are_put_and_results_keep_their_order() -> None:
    placing = Placing.of(2)
    places = [*placing.senders, placing.receiver]
    roles = [Role(f"role {i}", cpu, lambda: os.sched_getaffinity(0)) for i, cpu in enumerate(places)]
    assert run_roles(roles) == [{cpu} for cpu in places]


def test_the_receiver_has_a_cpu_of_its_own_if_there_are_two() -> None:
    allowed = os.sched_getaffinity(0)
    for senders in (1, 2, 5):
        placing = Placing.of(senders)
        assert len(placing.senders) == senders
        assert {*placing.senders, placing.receiver} <= allowed
        assert placing.shared == (len(allowed) == 1)


def test_parties_meet_as_often_as_they_like() -> None:
    board = Board(2)

    def count(party: int) -> list[int]:
        seen = []
        for turn in range(1, 4):
            board.words[party] = turn
            board.meet(party)
            seen.append(board.words[1 - party])
            board.meet(party)
        return seen

    cpu = Placing.of().receiver
    try:
        assert run_roles([Role(str(i), cpu, partial(count, i)) for i in range(2)]) == [[1, 2, 3], [1, 2, 3]]
    finally:
        board.close()


def test_median_and_p99() -> None:
    values = [float(i) for i in range(1, 101)]
    assert median(values) == 50.5
    assert p99(values) == 99.0
    assert p99([7.0]) == 7.0


def test_a_sample_as_json() -> None:
    sample = Sample("send-bit", "x", "ns", 40.0, None, 5, "sender cpu0, receiver cpu1", "")
    assert sample.as_dict() == {
        "row": "send-bit",
        "system": "x",
        "unit": "ns",
        "median": 40.0,
        "p99": None,
        "runs": 5,
        "pinning": "sender cpu0, receiver cpu1",
        "note": "",
    }
    assert not Sample("send-bit", "x", "ns", math.nan, None, 0, "", "hung").measured
