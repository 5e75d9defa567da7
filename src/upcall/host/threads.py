"""Vcores as threads of one process: for free-threaded Python, and for tests. No interrupts (G12), no restarts."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Literal

from ..kern import const
from ..kern.layout import Seg, vcpd_at
from .defined import make_all
from .definition import Program
from .linux import how_to_go_on, is_stopped
from .owner import finish, left_over, living, open_for_owner, tell_to_stop, write_tables
from .segment import Segment
from .settle import Host, open_host, settle, wait_for_end
from .signals import blocked
from .sources import Sources
from .stopping import TELL_MAX_S, TELL_S
from .stops import StopSignals, held
from .watch import Watcher
from .wire import SUPERVISOR_SOCKET
from .worker import WorkerHandle, host_type

log = logging.getLogger("upcall")


def end_workers(proc: Program, segment: Segment, seg: Seg) -> None:
    """Ends worker processes that a former supervisor has left: threads take their vcores over. Each ends after what it has
    in hand."""
    hosts = [host for v in range(segment.geometry.max_vcores) if (host := open_host(segment, seg, v))]
    for host in hosts:
        log.warning("%s/vcore %d: ends its running worker, pid %d", proc.name, host.vcoreid, host.pid)
        segment.put_u64(vcpd_at(seg, host.vcoreid) + const.VCPD_LEAVE, host.name)
        _tell(host)
    for host in hosts:
        pause, seen_stopped = TELL_S, False
        while not wait_for_end(host.pidfd, int(pause * 1000)):
            pause = min(2 * pause, TELL_MAX_S)
            _tell(host)  # once more: a signal that comes just before user code enters a system call is slept over
            if pause == TELL_MAX_S and not seen_stopped and is_stopped(host.pid):
                seen_stopped = True
                log.warning(
                    "%s/vcore %d: is to end, and pid %d %s",
                    proc.name, host.vcoreid, host.pid, how_to_go_on(host.pid),
                )  # fmt: skip
        os.close(host.pidfd)
        settle(segment, seg, host.vcoreid, ended=host.pid)
    living(segment, seg)  # and those that have died since we came
    segment.put_u64(seg.procinfo + const.PI_NUM_VCORES, proc.definition.vcores)
    write_tables(proc, segment)


def _tell(host: Host) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(host.pidfd, signal.SIGTERM)


class ThreadsInBackground:
    """A process whose vcores are threads of this one. The last thread to leave removes the segment, if nothing waits, and
    calls `ended`."""

    def __init__(self, proc: Program, ended: Callable[[], None] = lambda: None) -> None:
        self.proc = proc
        self.ended = ended
        self.guard = threading.Lock()
        self.running = proc.definition.vcores
        self.abandoned = False
        self.threads: list[threading.Thread] = []

    def start(self) -> None:
        """Returns when every vcore runs."""
        with held():  # the threads go on holding them: they are the main thread's business
            self.segment = open_for_owner(self.proc)
            self.seg = self.segment.attach(const.ROLE_SUPERVISOR)
            end_workers(self.proc, self.segment, self.seg)
            self.handle = WorkerHandle(self.segment)
            self.proc._lend_handle(self.handle)
            self.enough = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.watch = threading.Thread(target=self._watch, name=f"{self.proc.name}/watcher", daemon=True)
            self.watch.start()
            started = threading.Semaphore(0)
            try:
                for v in range(self.proc.definition.vcores):
                    thread = threading.Thread(
                        target=self._vcore, args=(v, started), name=f"{self.proc.name}/vcore {v}", daemon=True
                    )
                    thread.start()
                    self.threads.append(thread)
            except BaseException:  # no more threads can be had: those that are there are the last to leave
                for _ in range(self.proc.definition.vcores - len(self.threads)):
                    self._left()
                raise
            for _ in self.threads:
                started.acquire()

    def _vcore(self, vcoreid: int, started: threading.Semaphore) -> None:
        try:
            definition = self.proc.definition
            host = host_type(definition)(definition, self.handle, vcoreid, signals=False)
            if not host.start():
                raise RuntimeError(f"vcore {vcoreid} of {self.proc.name!r} is hosted by another living process")
        except BaseException:
            self._left()
            raise
        finally:
            started.release()
        try:
            host.loop()
        except BaseException as error:
            host.end_forked_child(error)
            log.error("%s/vcore %d: ended\n%s", self.proc.name, vcoreid, traceback.format_exc().rstrip())
        finally:
            host.finish()
            self._left()

    def _left(self) -> None:
        """One thread has left its vcore."""
        with self.guard:
            self.running -= 1
            if self.running:
                return
            os.eventfd_write(self.enough, 1)
            self.watch.join()
            os.close(self.enough)
            if not finish(self.segment, self.seg):
                log.warning("%s: stopped with %s", self.proc.name, left_over(self.segment, self.seg))
            if self.abandoned:
                self.proc._close_handle()
            else:
                self.ended()

    def _watch(self) -> None:
        """The watcher's thread: a vcore that hangs keeps no mail from the others."""
        seg = self.segment.attach(const.ROLE_SUPERVISOR)
        watcher = Watcher(self.segment, seg, self.proc.definition, None)
        sources = Sources(self.segment, SUPERVISOR_SOCKET, self.proc.definition.signals)
        make_all(sources, self.proc.definition, False)
        with selectors.DefaultSelector() as selector:
            for file in (watcher, sources, self.enough):
                selector.register(file, selectors.EVENT_READ)
            pause: float | None = 0.0
            while not any(key.fileobj == self.enough for key, _ in selector.select(pause)):
                pause = watcher.look()
                sources.run()
        sources.close()
        watcher.close()
        self.segment.detach(seg)

    def request_stop(self, stop: str) -> None:
        """Tells every vcore to stop, and wakes them all."""
        how = const.STOP_DRAIN if stop == "drain" else const.STOP_NOW
        tell_to_stop(self.segment, self.seg, range(len(self.threads)), how)

    def stop(self, stop: Literal["drain", "now"], timeout: float | None) -> None:
        """Stops all vcores, then removes the segment if nothing waits. TimeoutError past `timeout` seconds."""
        self.request_stop(stop)
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self.threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError(f"{thread.name} still stops after {timeout} s")

    def over(self) -> bool:
        """Whether all have left."""
        with self.guard:
            return self.running == 0

    def abandon(self) -> bool:
        """Waits for nobody: what handlers have in hand stays theirs until they, or this program, end. False if all have
        left already."""
        with self.guard:
            self.abandoned = self.running > 0
            return self.abandoned


def start_threads(proc: Program) -> ThreadsInBackground:
    """`Proc.start` with threads."""
    if proc.definition.signals:
        raise ValueError(
            f"signals of {proc.name!r} with host='thread': the program's other threads would take them; call run() in the "
            "main thread, or use host='process'"
        )
    background = ThreadsInBackground(proc)
    try:
        background.start()
    except BaseException:
        if background.threads or background.over():  # interrupted when they ran already
            background.stop("now", None)
            proc._close_handle()
        raise
    return background


def run_threads(proc: Program) -> None:
    """`Proc.run` with threads: until SIGINT or SIGTERM; a second one ends it at once."""
    with StopSignals() as signals, blocked(proc.definition.signals), selectors.DefaultSelector() as selector:
        selector.register(signals.fd, selectors.EVENT_READ)
        background = ThreadsInBackground(proc, signals.wake)
        background.start()
        stopping = False
        while not background.over():
            selector.select()
            for _ in signals.take():
                background.request_stop("now" if stopping else proc.definition.stop)
                if stopping and background.abandon():
                    log.warning("%s: stopped at once, with a handler still running", proc.name)
                    return
                stopping = True
    proc._close_handle()
