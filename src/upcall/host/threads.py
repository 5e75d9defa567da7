"""Vcores as threads of one process: for free-threaded Python, and for tests. No interrupts (G12), no restarts."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import threading
import time
import traceback
from types import FrameType
from typing import Literal

from ..front import port
from ..kern import const
from ..kern.layout import vcpd_at
from ..kern.proc import startcore
from . import forks
from .definition import Program
from .supervisor import finish, open_for_owner, something_waits
from .watch import Watcher
from .worker import VCoreHost, WorkerHandle

log = logging.getLogger("upcall")


class ThreadsInBackground:
    """A process whose vcores are threads of this one; returns when every vcore runs."""

    def __init__(self, proc: Program) -> None:
        self.proc = proc
        self.segment = open_for_owner(proc)
        self.seg = self.segment.attach(const.ROLE_SUPERVISOR)
        self.handle = WorkerHandle(self.segment)
        proc._lend_handle(self.handle)
        started = threading.Barrier(proc.definition.vcores + 1)
        self.threads = [
            threading.Thread(target=self._vcore, args=(v, started), name=f"{proc.name}/vcore {v}", daemon=True)
            for v in range(proc.definition.vcores)
        ]
        for thread in self.threads:
            thread.start()
        started.wait()
        self.ended = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch = threading.Thread(target=self._watch, name=f"{proc.name}/watcher", daemon=True)
        self.watch.start()

    def _vcore(self, vcoreid: int, started: threading.Barrier) -> None:
        try:
            host = VCoreHost(self.proc.definition, self.handle, vcoreid, signals=False)
            host.start()
        finally:
            started.wait()
        try:
            host.loop()
        except BaseException as error:
            host.end_forked_child(error)
            log.error("%s/vcore %d: ended\n%s", self.proc.name, vcoreid, traceback.format_exc().rstrip())
        finally:
            host.finish()

    def _watch(self) -> None:
        """The watcher's thread: a vcore that hangs keeps no mail from the others."""
        seg = self.segment.attach(const.ROLE_SUPERVISOR)
        watcher = Watcher(self.segment, seg, self.proc.definition, None)
        with selectors.DefaultSelector() as selector:
            selector.register(watcher, selectors.EVENT_READ)
            selector.register(self.ended, selectors.EVENT_READ)
            pause: float | None = 0.0
            while not any(key.fileobj == self.ended for key, _ in selector.select(pause)):
                pause = watcher.look()
        watcher.close()
        self.segment.detach(seg)

    def request_stop(self, stop: str) -> None:
        """Tells every vcore to stop, and wakes them all."""
        self.segment.put_u32(self.seg.procinfo + const.PI_STOP, const.STOP_DRAIN if stop == "drain" else const.STOP_NOW)
        for v in range(len(self.threads)):
            port.add_word(self.seg, vcpd_at(self.seg, v) + const.VCPD_NOTIF_PENDING, 1)
            startcore(self.seg, v)

    def stop(self, stop: Literal["drain", "now"], timeout: float | None) -> None:
        """Stops all vcores, then removes the segment if nothing waits. TimeoutError past `timeout` seconds."""
        self.request_stop(stop)
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self.threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError(f"{thread.name} still stops after {timeout} s")
        os.eventfd_write(self.ended, 1)
        self.watch.join()
        os.close(self.ended)
        if not finish(self.segment, self.seg):
            waiting = something_waits(self.segment, self.seg)
            log.warning("%s: stopped with events waiting in %d mailbox(es)", self.proc.name, waiting)


def run_threads(proc: Program) -> None:
    """`Proc.run` with threads: until SIGINT or SIGTERM."""
    stopped = threading.Event()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stopped.set()

    # Before the start: whoever finds the process may stop it.
    former = {number: forks.on_signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        background = ThreadsInBackground(proc)
        stopped.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    background.stop("drain" if proc.definition.stop == "drain" else "now", None)
    proc._close_handle()
