"""Forking a participant: a child that lives one function, and ends with its parent. And where it all is logged."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("upcall")
PR_SET_PDEATHSIG = 1
PROBLEMS_MAX = 10


def fork(life: Callable[[], object], at_our_end: int = signal.SIGKILL) -> int:
    """A child that lives `life`; its exit code is 0, or 1 after an exception, which is logged. If we die the kernel sends
    it the signal `at_our_end`."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    # A signal between the fork and the child's own handlers would run ours, in the child.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, at_our_end, 0, 0, 0)
        if os.getppid() == parent:  # else it died before we asked to be told
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of us; our parent decides
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            life()
            code = 0
    except BaseException:
        log.exception("a participant failed")
    finally:
        logging.shutdown()
        os._exit(code)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """The log of all processes goes to a file: the deaths of workers are our doing, and many."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    propagate, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
        handler.close()


def log_problems(path: Path) -> list[str]:
    """Lines of the log that nothing we do may cause: errors, and workers that ended by anything but a kill."""
    bad = []
    for line in path.read_text(errors="replace").splitlines():
        level, _, text = line.partition(" ")
        killed = "SIGKILL" in text or "nobody knows how" in text or "nobody restarts it" in text
        died = "worker ended" in text and not killed
        if (level == "ERROR" and not killed) or (level == "WARNING" and (died or "stopped with" in text)):
            bad.append(f"logged: {text}")
    return bad[:PROBLEMS_MAX]
