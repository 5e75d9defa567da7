"""Workers without a supervisor: they carry on, and one of them watches the others.

A worker learns of its supervisor's death by a signal that the kernel sends then. From that moment, and not before, it has
a helper thread, which waits for the watcher's lock: a byte behind those of the attach slots, held by one worker at a time
and passed on by the kernel when that one dies, whatever the cause. So there is no claim to publish and none to repair.

The holder watches as the supervisor does: the pidfds of the hosts, the FIFO `watch`, vcores that do not move (host/watch);
and it settles those that die. It restarts nobody: a worker may have threads and files of its own, and is no process to
fork workers from. When a supervisor attends the process again it writes a byte into the FIFO; the holder then sleeps on
that one's pidfd, and watches again when it dies. That the two overlap for a moment harms nobody (host/settle).
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import selectors
import signal
import traceback

from ..kern import const
from ..kern.layout import Seg
from ..parlib.recover import announce
from . import fingerprint
from .definition import Definition
from .segment import Segment, is_in_place
from .settle import Host, host_name, open_host, open_supervisor, settle, tell_watcher, wait_for_end
from .sources import Sources
from .watch import Watcher
from .wire import STANDBY_SOCKET

log = logging.getLogger("upcall")


class Standby:
    """What a worker does about its supervisor's death. `parent` is the supervisor's pid."""

    def __init__(self, segment: Segment, definition: Definition, parent: int) -> None:
        self.segment = segment
        self.definition = definition
        self.parent = parent
        self.begun = False

    def orphaned(self) -> bool:
        """Whether the supervisor that started this worker is gone."""
        return os.getppid() != self.parent

    def late(self) -> bool:
        """Whether the process has gone on without this worker, whose supervisor died while it started: another supervisor
        attends it, with workers of its own; or it was removed, or knows other tables by now.

        Asked by a host, in turn with those who start the process: they have attended it before, or they look for hosts
        after it, and find this one (pairs with `living` in host/owner)."""
        if not self.orphaned():
            return False
        segment = self.segment
        with segment.slots.in_turn():
            known = segment.u64(segment.seg.procinfo + const.PI_TABLES) == fingerprint.tables(self.definition)
            return segment.is_attended() or not is_in_place(segment) or not known

    def begin(self) -> None:
        """Starts the helper thread, once. From a signal handler: so nothing of `threading`, whose locks the interrupted
        code may hold."""
        if not self.begun:
            self.begun = True
            _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            # Whoever watches already may not know of this host: it is young, or was started by a later supervisor.
            tell_watcher(self.segment)
            self.segment.slots.wait_to_watch()
            self.segment.put_u32(self.segment.seg.procinfo + const.PI_WATCHER_PID, os.getpid())
            seg = self.segment.attach(const.ROLE_WATCHER)
            while True:
                supervisor = Lookout(self.segment, seg, self.definition).until_attended()
                wait_for_end(supervisor)
                os.close(supervisor)
        except BaseException:
            log.error("%s: cannot watch\n%s", self.segment.name, traceback.format_exc().rstrip())
        finally:
            self.segment.slots.stop_watching()  # another worker's turn


class Lookout:
    """A worker's look after the others."""

    def __init__(self, segment: Segment, seg: Seg, definition: Definition) -> None:
        self.segment = segment
        self.seg = seg
        self.selector = selectors.DefaultSelector()
        self.watcher = Watcher(segment, seg, definition, self._kill)
        self.selector.register(self.watcher, selectors.EVENT_READ, None)
        self.sources = Sources(segment, STANDBY_SOCKET)
        self.selector.register(self.sources, selectors.EVENT_READ, None)
        self.hosts: dict[int, Host] = {}

    def until_attended(self) -> int:
        """Watches until the process has a supervisor; a pidfd of that one."""
        try:
            while (supervisor := open_supervisor(self.segment, self.seg)) is None:
                self._watch()
            return supervisor
        finally:
            for host in list(self.hosts.values()):
                self._forget(host)
            self.selector.close()
            self.sources.close()
            self.watcher.close()
            # What was written for the supervisor, and read by us.
            tell_watcher(self.segment)

    def _watch(self) -> None:
        """Until somebody wants to be noticed: a host that has ended or begun, or a supervisor."""
        first = not self.hosts
        if first:
            log.warning(
                "%s: its supervisor is gone; worker %d watches the others. Who dies is not replaced until the process is "
                "started again (upcall run), which takes the workers over",
                self.segment.name, os.getpid(),
            )  # fmt: skip
        self._find(first)
        self.sources.somebody_died()
        found: list[tuple[selectors.SelectorKey, int]] = []
        while not found:
            pause = self.watcher.look()
            if self.watcher.heard:
                return  # it may have come since we looked for supervisors and hosts: once more, before anybody sleeps
            self.sources.look()  # after the FIFO is empty: who has written into it has changed the table before
            found = self.selector.select(pause)
            if [key.fileobj for key, _ in found] == [self.sources]:
                found.clear()
            self.sources.run()
        for key, _ in found:
            if key.data is not None:
                self._died(key.data)

    def _kill(self, vcoreid: int) -> None:
        """Ends a host that hangs, ourselves included."""
        host = self.hosts.get(vcoreid)
        with contextlib.suppress(ProcessLookupError):
            if host is not None:
                signal.pidfd_send_signal(host.pidfd, signal.SIGKILL)

    def _forget(self, host: Host) -> None:
        self.selector.unregister(host.pidfd)
        os.close(host.pidfd)
        del self.hosts[host.vcoreid]

    def _find(self, first: bool) -> None:
        """Finds hosts that are new, and settles those that are dead; the first time all that others may have left half
        done."""
        settled = first
        for v in range(self.segment.geometry.max_vcores):
            name = host_name(self.segment, v)
            if v in self.hosts and self.hosts[v].name != name:
                self._forget(self.hosts[v])
            if v in self.hosts:
                continue
            host = open_host(self.segment, self.seg, v)
            if host is not None:
                self.hosts[v] = host
                self.selector.register(host.pidfd, selectors.EVENT_READ, host)
            elif name or first:
                settle(self.segment, self.seg, v)
                settled = True
        if settled:
            announce(self.seg)

    def _died(self, host: Host) -> None:
        self._forget(host)
        again = settle(self.segment, self.seg, host.vcoreid, ended=host.pid)
        announce(self.seg)
        log.warning(
            "%s/vcore %d: worker ended; %d event(s) were in its hands; nobody restarts it",
            self.segment.name, host.vcoreid, again or 0,
        )  # fmt: skip
