"""What every test gets: segments in a folder of this run's own, a check that nothing is left behind, and both lives."""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from procs import Gate, Notes, log_to, nobody_stays
from protocol import StepLife
from sweep import build
from sweep.beside import Sweep
from upcall.check import interp
from upcall.host.segment import Segment, open_segment
from upcall.host.worker import worker_process

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 2.0
"""How long processes that were told to end may take after the test has returned."""

LACKS = "this machine lacks "


@pytest.fixture(scope="session", autouse=True)
def upcall_dir() -> Iterator[Path]:
    """The folder of this run's segments, on shared memory; processes that the tests start inherit it."""
    # Orphans become our children instead of init's: a worker that outlives its supervisor is then seen as a left-over.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # A run in a shell's background has Ctrl-C ignored, and so would have all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="upcall-test-", dir="/dev/shm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPCALL_DIR", str(folder))
        # Unbuffered, a line and its end are two writes, and lines of two workers run together.
        patch.delenv("PYTHONUNBUFFERED", raising=False)
        yield folder
    shutil.rmtree(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What the sweep has found is looked at last: it goes on beside all other tests."""
    items.sort(key=is_of_the_sweep)


def is_of_the_sweep(item: pytest.Item) -> bool:
    return item.path.name == "test_sweep.py"


@pytest.fixture(scope="session", autouse=True)
def sweep(request: pytest.FixtureRequest) -> Iterator[Sweep | None]:
    """The death sweep, from the beginning of a run that has tests of it; None if it has none, or cannot be built here."""
    ours = [item for item in request.session.items if is_of_the_sweep(item)]
    if not ours or build.missing():
        yield None
        return
    params = [item.callspec.params for item in ours if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
    found = Sweep((values["scene"], values["how"]) for values in params)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def nothing_left(upcall_dir: Path) -> Iterator[None]:
    """Fails a test that leaves files of a segment or processes behind, and removes them for the sake of the next."""
    files, processes = _files(upcall_dir), _children()
    yield
    end = time.monotonic() + GRACE_S
    while (left := {pid: name for pid, name in _children().items() if pid not in processes}) and time.monotonic() < end:
        time.sleep(0.005)
    killed = left
    while killed:
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        # Workers whose supervisor is gone carry on, and are our children by now.
        killed = {pid: name for pid, name in _children().items() if pid not in processes}
        left |= killed
    stray = _files(upcall_dir) - files
    for path in sorted(stray, reverse=True):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if left or stray:
        names = sorted(str(path.relative_to(upcall_dir)) for path in stray)
        pytest.fail(f"left behind: processes {left or 'none'}, files {names or 'none'}", pytrace=False)


@pytest.fixture
def nobody_left() -> Iterator[None]:
    """For the tests of a process `box` whose supervisor may die: its workers carry on then, and none may outlive a test."""
    yield
    nobody_stays("box")


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def _children() -> dict[int, str]:
    """This process's living children, pid to command line. Those that ended by themselves, orphans too, are reaped."""
    found = {}
    for entry in _child_pids():
        try:
            stat = Path("/proc", entry, "stat").read_bytes()
            command = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state = stat.rpartition(b")")[2].split(None, 1)[0]
        # The standard library keeps one tracker per process until the process ends, and a run has its sweep beside it.
        if "multiprocessing.resource_tracker" in command or "-m sweep." in command:
            continue
        if state == b"Z":
            os.waitpid(int(entry), os.WNOHANG)
        else:
            found[int(entry)] = command.strip() or stat.partition(b"(")[2].rpartition(b")")[0].decode(errors="replace")
    return found


def _child_pids() -> list[str]:
    """The list is whole: a child leaves it when this process waits for it, and not before."""
    found: list[str] = []
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found += (thread / "children").read_text().split()
    return found


@dataclass(frozen=True)
class Life:
    """One life of the protocol: `life.kern.ucq` is a module, compiled or interpreted.

    Both show the same functions and attributes to Python as far as the `.pxd` says `cpdef`, `public` or `readonly`; the
    interpreted life shows more, and it alone has a door that is made of Python, `life.machine.door`.
    """

    name: str
    machine: ModuleType
    kern: ModuleType
    parlib: ModuleType

    @property
    def compiled(self) -> bool:
        return self.name == "compiled"


def _life(name: str) -> Life:
    if name == "compiled":
        for module in interp.protocol_modules():
            importlib.import_module(f"upcall.{module}")
        root = importlib.import_module("upcall")
    else:
        root = interp.load(name="upcall_interp_tests")
    return Life(name, root.machine, root.kern, root.parlib)


@pytest.fixture(scope="session")
def lives() -> Iterator[Callable[[str], Life]]:
    """Both lives by name, each loaded once in this run."""
    loaded: dict[str, Life] = {}

    def life(name: str) -> Life:
        if name not in loaded:
            loaded[name] = _life(name)
        return loaded[name]

    yield life
    interp.unload("upcall_interp_tests")


@pytest.fixture(params=["compiled", "interpreted"])
def life(request: pytest.FixtureRequest, lives: Callable[[str], Life]) -> Life:
    """Runs the test twice, once in each life."""
    return lives(request.param)


@pytest.fixture(scope="session")
def step_life() -> Iterator[StepLife]:
    """The interpreted life once more, under a door whose every access can be a death or an interruption."""
    life = StepLife("upcall_steps")
    yield life
    interp.unload(life.name)


@pytest.fixture
def lacks() -> Callable[[str], NoReturn]:
    """The one way to skip: `lacks("a second core")`, for what this machine cannot show. Listed when the run ends."""

    def skip(what: str) -> NoReturn:
        pytest.skip(LACKS + what)

    return skip


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Any other skip is a failure: a test that does not run tells nothing, and nobody reads that it did not."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and LACKS not in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, not by the fixture `lacks`: {report.longrepr}"
    return report


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Notes]:
    """What any process writes down."""
    found = Notes(tmp_path / "notes")
    yield found
    found.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Where handlers wait until the test lets them through."""
    found = Gate()
    yield found
    found.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """A file, and in it what upcall logs meanwhile."""
    with log_to(tmp_path / "log") as path:
        yield path


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file; where it says so, workers stop themselves at that moment of their start."""
    moment = tmp_path / "moment"
    moment.write_text("")

    def stop_at(where: str) -> None:
        if moment.read_text() == where:
            os.kill(os.getpid(), signal.SIGSTOP)

    def process(*arguments: Any) -> int:
        stop_at("fork")
        return worker_process(*arguments)

    def opened(name: str) -> Segment:
        segment = open_segment(name)
        stop_at("open")
        return segment

    monkeypatch.setattr("upcall.host.supervisor.worker_process", process)
    monkeypatch.setattr("upcall.host.worker.open_segment", opened)
    return moment
