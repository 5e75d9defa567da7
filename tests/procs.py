"""Scaffolding for tests of the public API through real processes: what handlers in workers write down, gates at which
they wait, words that all processes share, sender processes, and programs of their own."""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import upcall
from upcall import inspect
from upcall.host.segment import folder

FORK_BESIDE_THREADS = ("-W", "ignore:This process:DeprecationWarning")
"""Options for programs that mean to fork beside threads, of which Pythons since 3.12 warn."""
LONG_S = 20.0
"""How long to wait for what must happen, before the test fails. Nothing that works comes near."""


def until(true: Callable[[], Any], what: str = "") -> Any:
    """Waits until `true()` is, and returns it."""
    end = time.monotonic() + LONG_S
    while not (found := true()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {LONG_S} s in vain for {what or true}")
        time.sleep(0.001)
    return found


class Notes:
    """What any process writes down, each note whole, in one order for all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def __call__(self, *fields: Any) -> None:
        os.write(self.fd, json.dumps(fields).encode() + b"\n")

    def read(self) -> list[list[Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def wait(self, count: int) -> list[list[Any]]:
        """Waits until there are so many notes."""
        until(lambda: len(self.read()) >= count, f"{count} notes")
        return self.read()

    def close(self) -> None:
        os.close(self.fd)


class Gate:
    """Where processes wait until the test lets so many of them through."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)

    def wait(self) -> None:
        os.read(self.fd, 8)  # unlike `eventfd_read` it goes on after a signal

    def open(self, count: int = 1_000_000) -> None:
        os.eventfd_write(self.fd, count)

    def close(self) -> None:
        os.close(self.fd)


class Words:
    """Bytes that this process and those it forks share."""

    def __init__(self, count: int) -> None:
        self.memory = mmap.mmap(-1, count)

    def __getitem__(self, i: int) -> int:
        return self.memory[i]

    def __setitem__(self, i: int, value: int) -> None:
        self.memory[i] = value

    def __len__(self) -> int:
        return len(self.memory)

    def bytes(self) -> bytes:
        return self.memory[:]

    def close(self) -> None:
        self.memory.close()


@contextlib.contextmanager
def running(proc: upcall.Proc, stop: str = "drain") -> Iterator[upcall.Proc]:
    """A started process; stopped at the end, or killed if the test failed."""
    proc.start()
    pid = getattr(proc._running, "pid", None)  # None: its vcores are threads of this process
    try:
        yield proc
        proc.stop(stop, timeout=LONG_S)  # type: ignore[arg-type]
    except BaseException:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(upcall.UpcallError):
                kill_workers(proc.name)
        discard(proc.name)
        raise


def abandon(proc: upcall.Proc) -> None:
    """Starts a process and kills it as a whole: the segment stays, and nobody attends it."""
    proc.start()
    bereave(proc)
    kill_workers(proc.name)


def bereave(proc: upcall.Proc) -> None:
    """Kills the supervisor of a started process; the `Proc` forgets about it."""
    os.kill(proc._running.pid, signal.SIGKILL)
    ended(proc._running.pid)
    os.close(proc._running.pidfd)
    proc._close_handle()
    proc._running = None


def kill_workers(name: str) -> None:
    """Kills all workers of a process, and waits until none is left."""

    def none_left() -> bool:
        alive = [vcore for vcore in vcore_info(name).values() if vcore.alive]
        for vcore in alive:
            if vcore.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(vcore.pid, signal.SIGKILL)
        return not alive

    until(none_left, "the end of the workers")


def discard(name: str) -> None:
    """Removes what a stopped process has left."""
    shutil.rmtree(folder() / name, ignore_errors=True)


def nobody_stays(name: str) -> None:
    """Ends a process that a test may have left, its workers, too, which carry on without a supervisor."""
    if (folder() / name).exists():
        pid = inspect.snapshot(name).pid
        if pid and pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
        kill_workers(name)
        discard(name)


def left(name: str) -> int:
    """How many events wait in what a stopped process has left."""
    return inspect.snapshot(name).waiting


def vcore_info(name: str) -> dict[int, Any]:
    """The process's vcores as the segment shows them, by id."""
    return {vcore.id: vcore for vcore in inspect.snapshot(name).vcores}


def connected(name: str, queue: str) -> upcall.Remote:
    """A connection to a process that another program is just starting."""

    def connect() -> upcall.Remote | None:
        try:
            remote = upcall.connect(name)
            if queue in remote.queues:
                return remote
            remote.close()
        except upcall.UpcallError:
            pass
        return None

    found: upcall.Remote = until(connect, f"queue {queue} of {name}")
    return found


def pids(name: str = "box") -> dict[int, int]:
    """Living workers of a process by vcore."""
    return {v: vcore.pid for v, vcore in vcore_info(name).items() if vcore.alive and vcore.pid}


def forked(function: Callable[[], object]) -> int:
    """Runs a function in a forked child; its exit code is 0, or 1 after an exception."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Waits for a child's end; its exit code, negative for a signal."""
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], LONG_S)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"child {pid} did not end in {LONG_S} s")
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextlib.contextmanager
def program(folder: Path, source: str, *args: object, name: str = "program.py") -> Iterator[subprocess.Popen[str]]:
    """A Python program of its own, in a session of its own; killed at the end if it has not ended."""
    path = folder / name
    path.write_text(textwrap.dedent(source))
    command = [sys.executable, *FORK_BESIDE_THREADS, str(path), *map(str, args)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def output(process: subprocess.Popen[str]) -> str:
    """What a program has printed, once it has ended."""
    return process.communicate(timeout=LONG_S)[0]


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[Path]:
    """The log of this process and of all that it forks, in a file."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("upcall")
    logger.addHandler(handler)
    try:
        yield path
    finally:
        logger.removeHandler(handler)
        handler.close()


def is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):  # a child that has ended since it was listed
        return False


def go_on(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


def stopped_child(proc: upcall.Proc) -> int:
    """The worker that has stopped itself."""
    children = Path(f"/proc/{proc._running.pid}/task/{proc._running.pid}/children")
    return int(until(lambda: next((p for p in map(int, children.read_text().split()) if is_stopped(p)), 0)))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", "upcall.cli", *arguments], capture_output=True, text=True, timeout=LONG_S,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


class Later(threading.Thread):
    """Something that takes its time, in a thread; `result` waits for what it returned or raises what it raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.function = function
        self.error: BaseException | None = None
        self.value: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self.function()
        except BaseException as error:
            self.error = error

    def result(self) -> Any:
        self.join(LONG_S)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.value
