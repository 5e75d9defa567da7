"""The supervisor: makes or adopts the segment, forks a worker per vcore, starts new ones for those that died, stops them.

It holds attach slot 0: whoever has its lock attends the process. Workers are watched through pidfds, so nothing is
polled: the supervisor sleeps in one `select` on them, on the FIFO `watch` (a worker has come online; a vcore runs while
the watcher sleeps), on the sockets of those who want something (host/control), on the signals that stop it, and on its
starter's pidfd if it has one.

When a worker dies: its vcore is NOHOST from then on, what it held is settled (host/settle), what waits is announced to the
others, and a new worker is forked. At once, if the dead one had handled anything or lived for long: it was killed at
work. One that dies soon after its start is started again after doubling pauses, and reported when that does not help.

Workers of a supervisor that has died are taken over as they are, if they run the same definition. If their handlers are
others they are replaced one by one; if their queues or types are, they all end first, since they would drop what they do
not know, and events wait in the segment meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..front import port
from ..kern import const
from ..kern.layout import map_at, vcpd_at
from ..parlib.recover import announce
from . import fingerprint, forks
from .changes import Changes, after_take_over, replace_others
from .control import Control
from .defined import make_all
from .definition import Program
from .linux import exit_status, how_to_go_on, is_stopped, reap
from .owner import finish, left_over, lives, living, nudge, open_for_owner, tell_to_stop, write_tables
from .settle import Host, host_name, of_slot, open_host, pid_of, settle, wait_for_end
from .signals import block
from .sources import Sources
from .stops import StopSignals, held
from .watch import Watcher
from .wire import SUPERVISOR_SOCKET
from .worker import EXIT_HOSTED, describe_exit, worker_process

log = logging.getLogger("upcall")
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 5.0
TELL_S = 0.05
TELL_MAX_S = 1.0
"""One that is to end is told again, after pauses that double: a signal that comes just before user code enters a system
call is slept over there, and nobody can see that."""
STEADY_S = 10.0
"""A worker that lived so long has started well: its next restart is at once."""


@dataclass
class Worker:
    """One vcore's worker: its process now, and how its starts went."""

    vcoreid: int
    pid: int = 0
    pidfd: int = -1
    child: bool = True
    """Ours; not one that was taken over."""
    started: float = 0.0
    starts: int = 0
    handled: int = 0
    """What its vcore had handled when it started."""
    fails: int = 0
    """Deaths in a row soon after the start."""
    restart_at: float | None = None
    asked: bool = False
    """It was asked to end: that will be no death."""
    kill_at: float | None = None
    tell_at: float | None = None
    """When to tell it to end once more, and after which pause then."""
    tell_pause: float = 0.0
    seen_stopped: bool = False
    """It was found stopped (SIGSTOP) since it was asked to end, and whoever waits for that was told."""
    said: str = ""
    """How its last process ended."""


@dataclass
class Starter:
    """Who has started a supervisor in the background: a pidfd of it, and the pipe that it waits on for a word."""

    pidfd: int
    pipe: int

    def say(self, text: str) -> bool:
        """Tells it, once. False if it does not wait any more."""
        try:
            os.write(self.pipe, text.encode())
        except BrokenPipeError:
            return False
        finally:
            os.close(self.pipe)
            self.pipe = -1
        return True


class Supervisor:
    """Attends one process until it is stopped. With a `starter` it is told when every vcore runs, and its end is a stop."""

    def __init__(self, proc: Program, signals: StopSignals, starter: Starter | None = None) -> None:
        self.proc = proc
        self.starter = starter
        self.segment = open_for_owner(proc)
        self.seg = self.segment.attach(const.ROLE_SUPERVISOR)
        self.workers: dict[int, Worker] = {}
        self.wanted = proc.definition.vcores
        self.starting = starter is not None
        self.selector = selectors.DefaultSelector()
        self.signals = signals
        self.when_readable(signals.fd, self._signalled)
        if starter is not None:
            self.when_readable(starter.pidfd, self._starter_ended)
        self.watcher = Watcher(self.segment, self.seg, proc.definition, self._kill)
        self.when_readable(self.watcher, self._look_soon)
        self.mask = block(proc.definition.signals)
        # Not the program's ways with its children, for ours: it may ignore how they end, or wait for any.
        self.on_child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.sources = Sources(self.segment, SUPERVISOR_SOCKET, proc.definition.signals)
        self.when_readable(self.sources, self.sources.run)
        self.look_at: float | None = 0.0
        """When the watcher's next look is due; None: when its FIFO is readable."""
        self.changes = Changes()
        self.control = Control(self)
        self.stop_as: int = 0
        self.at_once = False
        self.others: set[int] = set()
        """Vcores whose worker, taken over, runs another definition, and is to be replaced."""
        self.held = False
        """Nobody is started before the last worker of another definition has ended."""

    def when_readable(self, file: Any, do: Callable[[], object]) -> None:
        """Has a file watched in the supervisor's loop."""
        self.selector.register(file, selectors.EVENT_READ, do)

    # Starting

    def _begin(self) -> None:
        """Takes over the workers that live, and plans the start of those that are missing."""
        for v in range(self.segment.geometry.max_vcores):
            host = open_host(self.segment, self.seg, v)
            if host is not None:
                self.workers[v] = Worker(v)
                self._adopt(self.workers[v], host)
            elif host_name(self.segment, v) and not lives(self.segment, self.seg, v):  # it has died since we came
                announce(self.seg)
        taken = list(self.workers.values())
        known = self._table_number() == fingerprint.tables(self.proc.definition)
        if not taken and not known:  # it was for those who lived when we came
            write_tables(self.proc, self.segment)
        if taken:
            who = ", ".join(f"vcore {worker.vcoreid} (pid {worker.pid})" for worker in taken)
            log.warning("%s: its supervisor had died; took over its running workers: %s", self.proc.name, who)
            if not known:
                self.held = True
                log.warning(
                    "%s: they know other queues or types, so all of them end first; nothing is handled until then",
                    self.proc.name,
                )
                for worker in taken:
                    self.ask_to_end(worker)
            else:
                self.others = {worker.vcoreid for worker in taken if not self._runs_this(worker)}
                self.changes.begin(after_take_over(self))
        if not self.held:
            make_all(self.sources, self.proc.definition, bool(taken))
        self.want(self.wanted)

    def _adopt(self, worker: Worker, host: Host) -> None:
        """Watches a host that is not our child."""
        worker.pid, worker.pidfd, worker.child = host.pid, host.pidfd, False
        worker.started, worker.handled = time.monotonic(), -1
        worker.starts += 1
        self.when_readable(worker.pidfd, functools.partial(self._died, worker))

    def _table_number(self) -> int:
        return self.segment.u64(self.seg.procinfo + const.PI_TABLES)

    def _runs_this(self, worker: Worker) -> bool:
        """Whether a worker runs this definition."""
        theirs = of_slot(self.segment, host_name(self.segment, worker.vcoreid), const.AS_DEFINITION)
        return theirs == fingerprint.whole(self.proc.definition)

    def want(self, count: int) -> None:
        """So many vcores from now on: those that are missing are started, those beyond are not started again."""
        self.wanted = count
        for v in range(count):
            worker = self.workers.setdefault(v, Worker(v))
            if not worker.pid and worker.restart_at is None:
                worker.restart_at = time.monotonic()
        for v in [v for v, worker in self.workers.items() if v >= count and not worker.pid]:
            del self.workers[v]
        self._count()

    def _count(self) -> None:
        """Says how many vcores there are. One that goes counts as long as its worker lives: it is watched, and mail finds
        it."""
        definition, info = self.proc.definition, self.seg.procinfo
        count = max(self.wanted, *(v + 1 for v in self.workers))
        self.segment.put_u64(
            info + const.PI_CORES, count if definition.cores == definition.vcores else definition.cores
        )
        before = self.segment.u64(info + const.PI_NUM_VCORES)
        # With a fence: who lowers the number looks for private mail afterwards.
        port.add_word(self.seg, info + const.PI_NUM_VCORES, count - before)

    def fork(self, worker: Worker) -> None:
        """Starts a worker process for a vcore."""
        worker.restart_at = None
        worker.started = time.monotonic()
        worker.starts += 1
        worker.child = True
        self.others.discard(worker.vcoreid)
        worker.handled = self._handled(worker)
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        with held():  # until the worker has its own ways with them
            if self.proc.definition.start_method == "spawn":
                from .spawn import spawn

                worker.pid = spawn(self.proc, worker.vcoreid)
            else:
                worker.pid = os.fork()
                if worker.pid == 0:
                    forks.run_child(lambda: self._worker(worker.vcoreid, parent))
        worker.pidfd = os.pidfd_open(worker.pid)
        self.when_readable(worker.pidfd, functools.partial(self._died, worker))

    def _worker(self, vcoreid: int, parent: int) -> int:
        """A worker process, before it becomes one: lets go of what is the supervisor's."""
        fds = [other.pidfd for other in self.workers.values()]
        if self.starter is not None:
            fds += [self.starter.pidfd, self.starter.pipe]
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        signal.signal(signal.SIGCHLD, self.on_child)
        self.control.close_in_child()
        self.sources.close_in_child()
        self.selector.close()
        return worker_process(self.proc, self.proc.name, vcoreid, parent)

    def is_online(self, worker: Worker) -> bool:
        """Whether this worker hosts its vcore, so that everybody can tell its pid."""
        if not worker.pid or pid_of(self.segment, host_name(self.segment, worker.vcoreid)) != worker.pid:
            return False
        # Its name comes first, then its word (`host_vcore`): with the name alone `upcall ps` shows nobody.
        return self.segment.u64(map_at(self.seg, worker.vcoreid)) & 15 != const.VC_NOHOST

    # Stopping

    def _signalled(self) -> None:
        """SIGINT, SIGTERM. In the foreground: stop as defined, and at a second one, at once. In the background: SIGTERM
        is "drain" and SIGINT "now", the words of `Background.stop`, which may be said again: the last one counts."""
        for number in self.signals.take():
            wanted = number in self.proc.definition.signals and not self.starting
            if wanted and not self.segment.u32(self.seg.procinfo + const.PI_STOP):
                self.sources.signal(number)
            elif self.starter is not None:
                self.stop("drain" if number == signal.SIGTERM else "now")
            else:
                self.at_once = bool(self.stop_as)
                self.stop(self.proc.definition.stop)

    def _starter_ended(self) -> None:
        assert self.starter is not None
        self.selector.unregister(self.starter.pidfd)
        if not self.stop_as:
            self.stop("drain")  # nobody else will

    def stop(self, stop: str) -> None:
        """Tells every worker to stop in this manner, "drain" or "now", and wakes them all; at once: kills them."""
        self.stop_as = const.STOP_DRAIN if stop == "drain" else const.STOP_NOW
        self.changes.cancel("the process is being stopped")
        if self.at_once:
            for v in self.workers:
                self._kill(v)
        tell_to_stop(self.segment, self.seg, self.workers, self.stop_as)
        for worker in self.workers.values():
            self._tell_soon(worker)

    def ask_to_end(self, worker: Worker, kill_after: float | None = None) -> None:
        """Asks a worker to end after what is in hand; kills it if it has not after so many seconds."""
        worker.asked = True
        worker.kill_at = None if kill_after is None else time.monotonic() + kill_after
        if worker.pid:
            at = vcpd_at(self.seg, worker.vcoreid) + const.VCPD_LEAVE
            self.segment.put_u64(at, host_name(self.segment, worker.vcoreid))
            self._send(worker, signal.SIGTERM)
            self._tell_soon(worker)

    def _tell_soon(self, worker: Worker) -> None:
        worker.seen_stopped = False
        self._tell_again(worker, TELL_S)

    def _tell_again(self, worker: Worker, pause: float) -> None:
        worker.tell_at, worker.tell_pause = time.monotonic() + pause, min(2 * pause, TELL_MAX_S)

    def _kill(self, vcoreid: int) -> None:
        """Ends a worker that hangs; what follows is as for any death."""
        if vcoreid in self.workers:
            self._send(self.workers[vcoreid], signal.SIGKILL)

    def _send(self, worker: Worker, number: signal.Signals) -> None:
        if worker.pid:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(worker.pidfd, number)

    # The loop

    def run(self) -> None:
        """Until stopped."""
        try:
            self._signalled()
            self._begin()
            while any(worker.pid or worker.restart_at is not None for worker in self.workers.values()):
                self._step()
        finally:
            for worker in self.workers.values():
                if worker.pid:
                    self._send(worker, signal.SIGKILL)
                    self._reap(worker)
            self.close()

    def _step(self) -> None:
        started = not self.held and all(self._started(w) for w in self.workers.values())
        if self.starting and self.starter is not None and started:
            self.starting = False
            if not self.starter.say("ready"):
                self.stop("now")  # whoever wanted it was interrupted
        for key, _ in self.selector.select(self._pause()):
            key.data()
        now = time.monotonic()
        if self.look_at is not None and self.look_at <= now:
            pause = self.watcher.look()
            # After its FIFO is empty: whoever has changed the table and written a byte before is seen now.
            self.sources.look()
            self.look_at = None if pause is None else now + pause
        if self.held and not any(worker.pid for worker in self.workers.values()):
            self.held = False
            write_tables(self.proc, self.segment)
            make_all(self.sources, self.proc.definition, False)
        for worker in list(self.workers.values()):
            self._act(worker, now)
        self.changes.go_on()
        if self.others and self.changes.change is None and not self.stop_as:
            self.changes.begin(replace_others(self))  # a command came meanwhile, and is done

    def _started(self, worker: Worker) -> bool:
        """Whether its start is over; one that died at it does not hold the others back."""
        return self.is_online(worker) or worker.fails > 0

    def _pause(self) -> float | None:
        """For how long there is nothing to do but to wait for events."""
        due = [w.restart_at for w in self.workers.values() if w.restart_at is not None and not self.held]
        due += [at for w in self.workers.values() for at in (w.kill_at, w.tell_at) if at is not None]
        due += [] if self.look_at is None else [self.look_at]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _look_soon(self) -> None:
        self.look_at = 0.0

    def _act(self, worker: Worker, now: float) -> None:
        """Does what is due for a worker."""
        if worker.kill_at is not None and worker.kill_at <= now:
            worker.kill_at = None
            log.warning("%s/vcore %d: has not ended when asked: killed", self.proc.name, worker.vcoreid)
            self._send(worker, signal.SIGKILL)
        if worker.tell_at is not None and worker.tell_at <= now:
            if self.stop_as:
                nudge(self.seg, [worker.vcoreid])
            else:
                self._send(worker, signal.SIGTERM)
            self._tell_again(worker, worker.tell_pause)
            if worker.tell_pause == TELL_MAX_S and not worker.seen_stopped and is_stopped(worker.pid):
                self._stands_still(worker)
        if worker.restart_at is not None and self.stop_as:
            worker.restart_at = None
        elif worker.restart_at is not None and worker.restart_at <= now and not self.held:
            self.fork(worker)

    def _stands_still(self, worker: Worker) -> None:
        """A worker that is to end is stopped: what is in its hands is its own, so it is waited for, unless a hang is a death
        here."""
        worker.seen_stopped = True
        who = f"{self.proc.name}/vcore {worker.vcoreid}"
        if self.proc.definition.on_hang == "kill":
            log.warning("%s: is to end, and is stopped: killed (on_hang='kill')", who)
            self._send(worker, signal.SIGKILL)
            return
        log.warning("%s: is to end, and pid %d %s", who, worker.pid, how_to_go_on(worker.pid))
        line = {"vcore": worker.vcoreid, "pid": worker.pid, "says": how_to_go_on(worker.pid)}
        self.changes.tell(line)
        self.control.tell_stopping(line)

    def _reap(self, worker: Worker) -> None:
        """Waits for a worker's end, and lets its pid go."""
        wait_for_end(worker.pidfd)
        if worker.child:
            reap(worker.pid)
        os.close(worker.pidfd)
        worker.pid, worker.pidfd = 0, -1

    def _died(self, worker: Worker) -> None:
        """A worker has ended: settles what it held, and plans what comes next."""
        self.selector.unregister(worker.pidfd)
        pid, status = worker.pid, exit_status(worker.pid) if worker.child else None
        self.ended(worker, pid, status)
        asked, worker.asked, worker.kill_at, worker.tell_at = worker.asked, False, None, None
        worker.said = describe_exit(status)
        again = settle(self.segment, self.seg, worker.vcoreid, ended=pid) or 0
        self.sources.somebody_died()  # before it is reaped: its calls say how it ended
        self._reap(worker)
        if status is not None and os.waitstatus_to_exitcode(status) == EXIT_HOSTED and self._find(worker):
            return
        if self.stop_as or self.segment.u32(self.seg.procinfo + const.PI_STOP):
            self.control.tell_stopping({"vcore": worker.vcoreid, "says": "ended"})
            return  # told already: `Background.stop` writes the word first, then sends the signal
        announce(self.seg)
        if not asked:
            self._plan(worker, again)
        elif worker.vcoreid < self.wanted:
            worker.restart_at = time.monotonic()
        if worker.vcoreid >= self.wanted:
            del self.workers[worker.vcoreid]
            self._count()

    def ended(self, worker: Worker, pid: int, status: int | None) -> None:
        """A worker has ended, and what it held is not yet settled. For a supervisor that has more to do then."""

    def _find(self, worker: Worker) -> bool:
        """Somebody alive hosts the vcore already: a worker that a former supervisor had started when it died."""
        host = open_host(self.segment, self.seg, worker.vcoreid)
        if host is None:
            lives(self.segment, self.seg, worker.vcoreid)
            return False
        log.warning("%s/vcore %d: took over its running worker, pid %d", self.proc.name, worker.vcoreid, host.pid)
        self._adopt(worker, host)
        if not self._runs_this(worker):
            self.others.add(worker.vcoreid)
        if self.stop_as:
            tell_to_stop(self.segment, self.seg, [worker.vcoreid], self.stop_as)
        return True

    def _handled(self, worker: Worker) -> int:
        return self.segment.u64(vcpd_at(self.seg, worker.vcoreid) + const.VCPD_HANDLED)

    def _plan(self, worker: Worker, again: int) -> None:
        """After a death: a new worker, at once if the dead one was at work. How often it dies at its start is shown."""
        now, vcpd = time.monotonic(), vcpd_at(self.seg, worker.vcoreid)
        worked = self._handled(worker) != worker.handled or now - worker.started >= STEADY_S
        worker.fails = 0 if worked else worker.fails + 1
        pause = 0.0 if worker.fails <= 1 else min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (worker.fails - 2))
        worker.restart_at = now + pause
        self.segment.put_u64(vcpd + const.VCPD_RESTARTS, self.segment.u64(vcpd + const.VCPD_RESTARTS) + 1)
        self.segment.put_u64(vcpd + const.VCPD_FAILS, worker.fails)
        who = f"{self.proc.name}/vcore {worker.vcoreid}"
        if worker.fails < const.FAILING:
            log.warning(
                "%s: worker ended (%s) after %.1f s; %d event(s) were in its hands; restart in %.2f s",
                who, worker.said, now - worker.started, again, pause,
            )  # fmt: skip
        elif worker.fails == const.FAILING:
            log.error(
                "%s: its worker has died %d times in a row soon after its start (%s): tried again every %.0f s at least, "
                "without further reports; the other vcores go on",
                who, worker.fails, worker.said, BACKOFF_MAX_S,
            )  # fmt: skip

    def let_go(self) -> bool:
        """Removes the segment, if nobody lives in it and nothing waits. Whether it did."""
        return not living(self.segment, self.seg) and finish(self.segment, self.seg)

    def close(self) -> None:
        """The end: removes the segment, or leaves it with what waits in it."""
        self.control.close()
        removed = self.let_go()
        left = "" if removed else left_over(self.segment, self.seg)
        if not removed:
            log.warning(
                "%s: stopped with %s: they stay in %s for the next start", self.proc.name, left, self.segment.path
            )
        self.selector.close()
        self.sources.close()
        self.watcher.close()
        self.segment.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        signal.signal(signal.SIGCHLD, self.on_child)
        self.control.tell_stopped(removed, left)
