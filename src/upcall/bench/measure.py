"""How a measurement is run: fresh, pinned processes that always end, and the clock around the measured calls.

A measurement is a set of *roles* (a sender, a receiver), each in a process forked for it and pinned to one CPU. The
parent waits for every role's result until a deadline; then, and on any error or Ctrl-C, it kills what is left and reaps
it, so nothing survives the call. A role whose parent is killed is killed by the kernel.

Roles meet on a :class:`Board`, an anonymous shared page, whose waiting is never inside a timed region.

This code assumes a caller without threads of its own (a forked child has only the thread that forked).
"""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import os
import pickle
import selectors
import signal
import statistics
import sys
import time
import traceback
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Final, NoReturn

DEADLINE_S: Final = 30.0
"""How long one run of one row may take before it counts as hung."""

_PR_SET_PDEATHSIG: Final = 1


class Hung(Exception):
    """Roles that had not ended at the deadline. They have been killed."""


class RoleFailed(Exception):
    """A role raised, or its process died. The others have been killed."""


# ---- sizes and statistics -----------------------------------------------------------------------------------------


def runs_for(scale: float) -> int:
    """How often a measurement is repeated in fresh processes at this scale."""
    return 5 if scale >= 0.5 else 3 if scale >= 0.1 else 1


def count_for(full: int, scale: float, least: int) -> int:
    """How many repetitions a run makes where a full one makes `full`."""
    return max(least, int(full * scale))


def median(values: Iterable[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def p99(values: Iterable[float]) -> float:
    """The smallest value that at least 99 % of the values do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]


# ---- clocks -------------------------------------------------------------------------------------------------------


def time_sends(send: Callable[[Any], object], message: object, blocks: int, per_block: int) -> array[float]:
    """Times `send(message)` in blocks, since reading the clock costs as much as a good send.

    Returns one mean per block, in ns per send, the loop's own share (a few ns) included.
    """
    now = time.perf_counter_ns
    means = array("d")
    for _ in repeat(None, blocks):
        begin = now()
        for m in repeat(message, per_block):
            send(m)
        means.append((now() - begin) / per_block)
    return means


def time_typed(
    send: Callable[[Any, Any], object], kind: object, message: object, blocks: int, per_block: int
) -> array[float]:
    """Like :func:`time_sends`, for a send that takes a type and a message."""
    now = time.perf_counter_ns
    means = array("d")
    for _ in repeat(None, blocks):
        begin = now()
        for m in repeat(message, per_block):
            send(kind, m)
        means.append((now() - begin) / per_block)
    return means


def time_calls(call: Callable[[], object], blocks: int, per_block: int) -> array[float]:
    """Like :func:`time_sends`, for a call without an argument: ns per call, one mean per block."""
    now = time.perf_counter_ns
    means = array("d")
    for _ in repeat(None, blocks):
        begin = now()
        for _ in repeat(None, per_block):
            call()
        means.append((now() - begin) / per_block)
    return means


# ---- CPUs ---------------------------------------------------------------------------------------------------------


def _siblings(cpu: int) -> set[int]:
    """The CPUs that share a core with this one, itself included."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return {cpu}
    found = {cpu}
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def cpus() -> list[int]:
    """The CPUs this process may use, those of different cores first: the sender's, the receiver's, then any others."""
    allowed = sorted(os.sched_getaffinity(0))
    firsts: list[int] = []
    taken: set[int] = set()
    for cpu in allowed:
        if cpu not in taken:
            firsts.append(cpu)
            taken |= _siblings(cpu)
    return firsts + [cpu for cpu in allowed if cpu not in firsts]


@dataclass(frozen=True)
class Placing:
    """Which role runs where: senders from the first CPU on, the receiver alone on the second, if there is one."""

    senders: tuple[int, ...]
    receiver: int

    @classmethod
    def of(cls, senders: int = 1) -> Placing:
        """Places `senders` senders and a receiver on the CPUs at hand. Senders share when CPUs are few."""
        available = cpus()
        if len(available) == 1:
            return cls((available[0],) * senders, available[0])
        others = [available[0], *available[2:]]
        return cls(tuple(others[i % len(others)] for i in range(senders)), available[1])

    @property
    def shared(self) -> bool:
        """Must sender and receiver take turns on one CPU? Then who polls has to yield, or the other never runs."""
        return self.receiver in self.senders

    def __str__(self) -> str:
        if self.shared:
            return f"all on cpu{self.receiver} (only one CPU allowed)"
        plural = "s" if len(self.senders) > 1 else ""
        used = " ".join(f"cpu{cpu}" for cpu in dict.fromkeys(self.senders))
        return f"sender{plural} {used}, receiver cpu{self.receiver}"


# ---- the page on which roles meet ---------------------------------------------------------------------------------


class Board:
    """Shared 64-bit words for roles to meet on, and to leave word for each other.

    `words` may be read and written by every role; `meet` uses its own, behind those. Make it before the fork.
    """

    WORDS: Final = 64

    def __init__(self, parties: int) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE)
        self._all = memoryview(self._map).cast("Q")
        self._met = self._all[self.WORDS : self.WORDS + parties]
        self.words = self._all[: self.WORDS]

    def meet(self, party: int) -> None:
        """Returns when every party has called this as often as `party` has now."""
        self._met[party] += 1
        phase = self._met[party]
        while min(self._met) < phase:
            time.sleep(100e-6)

    def close(self) -> None:
        """Gives the page back. The board is unusable afterwards."""
        self.words.release()
        self._met.release()
        self._all.release()
        self._map.close()


# ---- processes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Role:
    """What one process of a measurement does: `body` returns its (picklable) result."""

    name: str
    cpu: int
    body: Callable[[], Any]


class _Child:
    """A role's process and the pipe its result comes through."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.received = bytearray()
        self._reaped = False
        # What is buffered would be printed once more by each child that flushes.
        sys.stdout.flush()
        sys.stderr.flush()
        self.fd, theirs = os.pipe()
        parent = os.getpid()
        # A signal between the fork and the child's own handlers would run the parent's, in the child.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.pid = os.fork()
        if self.pid == 0:
            _live(role, theirs, parent, unblocked)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        os.close(theirs)

    def read(self) -> bool:
        """Takes what has come; False at the end."""
        chunk = os.read(self.fd, 1 << 20)
        self.received += chunk
        return bool(chunk)

    def result(self) -> Any:
        """The role's result, once `read` has returned False. Raises RoleFailed."""
        _, status = os.waitpid(self.pid, 0)
        self._reaped = True
        if not self.received:
            code = os.waitstatus_to_exitcode(status)
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            raise RoleFailed(f"{self.role.name} ended without a result ({how})")
        ok, value = pickle.loads(self.received)
        if not ok:
            raise RoleFailed(f"{self.role.name}: {value}")
        return value

    def end(self) -> None:
        """Kills the process if it still lives, and reaps it."""
        os.close(self.fd)
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._reaped = True


def _live(role: Role, fd: int, parent: int, unblocked: set[int | signal.Signals]) -> NoReturn:
    """The child's whole life. Leaves by `_exit`: the parent's exit handlers are not ours to run."""
    status = 1
    try:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before we asked to be told
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
                signal.signal(signum, signal.SIG_DFL)
            # Ctrl-C reaches the whole terminal group; the parent ends us, and one traceback is enough.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            os.sched_setaffinity(0, {role.cpu})
            gc.disable()  # as timeit does: a collection of the caller's heap is not the cost of a send
            answer: tuple[bool, Any] = (True, role.body())
        except BaseException as error:
            answer = (False, brief(error))
        with os.fdopen(fd, "wb") as pipe:
            pickle.dump(answer, pipe)
        status = 0
    finally:
        os._exit(status)


def brief(error: BaseException) -> str:
    """One line: what was raised, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def run_roles(roles: Sequence[Role], deadline_s: float = DEADLINE_S) -> list[Any]:
    """Runs every role in a process of its own and returns their results, in order.

    Raises :class:`RoleFailed` as soon as one fails, :class:`Hung` after `deadline_s` seconds. However it ends, every
    process it made is dead and reaped.
    """
    children: list[_Child] = []
    try:
        for role in roles:
            children.append(_Child(role))
        return _collect(children, time.monotonic() + deadline_s, deadline_s)
    finally:
        for child in children:
            child.end()


def _collect(children: list[_Child], until: float, deadline_s: float) -> list[Any]:
    results: dict[int, Any] = {}
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child.fd, selectors.EVENT_READ, child)
        while len(results) < len(children):
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready and time.monotonic() >= until:
                names = ", ".join(child.role.name for child in children if child.pid not in results)
                raise Hung(f"hung: {names} not done after {deadline_s:g} s")
            for key, _ in ready:
                child = key.data
                if not child.read():
                    selector.unregister(child.fd)
                    results[child.pid] = child.result()
    return [results[child.pid] for child in children]
