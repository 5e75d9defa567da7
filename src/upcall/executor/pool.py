"""An executor's inner part: its two processes, its threads, and its end. It outlives the `Executor` that the program holds,
until every task is done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import time
from typing import Any

from ..errors import ForkedHandle, NoSuchProcess, UpcallError, WorkerDied
from ..front import port
from ..front.parts import PartsSender
from ..front.tasks import Inbox
from ..host import segment as files
from ..host.background import start_child
from ..host.handle import Handle
from ..host.linux import reap
from ..host.owner import open_for_owner
from ..host.segment import open_segment
from ..host.settle import has_ended, open_host, wait_for_end
from ..host.worker import Report, WorkerHandle
from ..inspect.clean import clean
from ..kern import const
from ..kern.proc import unhost_vcore
from ..parlib import vcore as parlib
from ..parlib.dead import settle_message, take_letter
from ..parlib.recover import host_vcore
from .buffers import outgoing, too_large
from .future import Future
from .program import TASK, TASKS, Config, TasksProc, answers_proc
from .server import fork_server, spawn_server, tasks_in

log = logging.getLogger("upcall")
WINDOW = 1024
"""So many tasks are on their way to workers at once; the rest wait in the parent."""
CLEAN_S = 10.0
"""For so long at most the end of an executor whose supervisors died waits for its last worker to be gone."""
STARTS_MAX = 5
"""So many supervisors that die in a row, without an answer in between, are enough."""


class RemoteTraceback(Exception):
    """The cause of an exception that a task raised: its traceback in the worker, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Pool:
    """Runs from its making until `close`, and then until every task is done."""

    def __init__(self, config: Config, *, fork: bool) -> None:
        self.config = config
        self.pid = os.getpid()
        self.launch = fork_server if fork else spawn_server
        # The garbage collector may drop an iterator of `map`, and so cancel its tasks, in the middle of what it guards.
        self.guard = threading.RLock()
        self.closing = self.killing = False
        self.broken: BaseException | None = None
        answers = answers_proc(config)
        self.segment = open_for_owner(answers)
        self.names = WorkerHandle(self.segment)
        self.seg = self.segment.attach(const.ROLE_VCORE)
        try:
            self.background = start_child(TasksProc(config), self.launch)
            self.remote = Handle(open_segment(config.name))
        except BaseException:
            self._remove()
            raise
        thread = self.remote.thread()
        self.remote._local.thread = None  # not this thread's: everybody's who has the interpreter's lock
        self.sender: Any = thread
        out = PartsSender(
            self.remote.segment.attachment,
            thread.seg,
            self.remote,
            self.remote.queue_number(TASKS),
            port.current_thread(),
        )
        report = Report(config.answers, 0)
        self.inbox = Inbox(
            self.seg, self.names, report, self, Future, out, self.remote.types[TASK], WINDOW, config.dumps,
            not config.cloudpickle,
        )  # fmt: skip
        if (os.cpu_count() or 1) == 1:
            self.inbox.patience = 0
        parlib.disable_notifs(self.inbox)
        host_vcore(self.seg, 0)
        self.ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.thread = threading.Thread(target=self._attend, name=config.name, daemon=True)
        self.watch = threading.Thread(target=self._watch, name=f"{config.name} watch", daemon=True)
        self.thread.start()
        self.watch.start()

    # What `front.tasks` asks of its owner

    def check_not_forked(self) -> None:
        """ForkedHandle in a child of the process that made the executor."""
        if os.getpid() != self.pid:
            raise ForkedHandle(
                f"this executor belongs to process {self.pid}, this is its forked child {os.getpid()}: make one here"
            )

    def check(self) -> None:
        """Raises if no task can be made: in a forked child, or when the workers are gone for good."""
        self.check_not_forked()
        if self.broken is not None:
            raise RuntimeError(f"the executor cannot go on: {self.broken}")
        if self.inbox.over:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def outgoing(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments with buffers that are to be sent beside the pickle."""
        return outgoing(args, kwargs)

    def too_large(self, size: int, limit: int) -> Exception:
        """A call that never fits."""
        return too_large("a call", size, limit)

    def no_room(self, status: int, size: int) -> Exception:
        """A call that does not fit now, with nothing under way that would make room."""
        try:
            self.remote.fail(status, self.inbox.out.queue)
        except Exception as error:
            error.add_note(
                f"a call of {size} bytes; the executor's segment has {self.config.memory}: Executor(memory=...)"
            )
            return error

    def remote_error(self, value: tuple[BaseException, str]) -> BaseException:
        """What a task raised."""
        error, text = value
        error.__cause__ = RemoteTraceback(text)
        return error

    def unreadable(self, future: Any, failure: BaseException) -> BaseException:
        """An answer that cannot be unpickled here."""
        failure.add_note("raised while the task's result, or its exception, was unpickled")
        return failure

    def died(self, future: Any) -> BaseException:
        """The call that a worker has died with."""
        text = call_text(future.call)
        if future.death is None:
            return WorkerDied(f"a worker died with {text} in its hands, and its supervisor too", text)
        pid, status = future.death & 0xFFFFFFFF, future.death >> 32
        return WorkerDied(f"worker {pid} died with {text} in its hands: {_how(status)}", text, pid, status)

    # Taking tasks back

    def take_back(self, future: Future) -> bool:
        """A task that no worker has taken: withdrawn, and its future CANCELLED."""
        self.check_not_forked()
        if self.inbox.withdraw(future, False):
            return True
        with self.guard:
            return (
                future.sent and not self.segment.closed and self._take(future.id) and self.inbox.withdraw(future, True)
            )

    def _take(self, number: int) -> bool:
        """Takes a task's event out of the workers' queue."""
        segment, seg = self.remote.segment, self.inbox.out.s
        for where, _ in tasks_in(segment, const.READY, number=number):
            if take_letter(seg, where):
                settle_message(seg, self.inbox.out.mbox, where)
                return True
        return False

    def is_taken(self, future: Future) -> bool:
        """Whether a worker has the task in its hands."""
        self.check_not_forked()
        with self.guard:
            if self.segment.closed:
                return False
            return bool(tasks_in(self.remote.segment, const.TAKEN, number=future.id))

    # Its threads

    def pending(self) -> bool:
        """Whether tasks are not done."""
        return bool(self.inbox.futures or self.inbox.overflow or self.inbox.slow)

    def _attend(self) -> None:
        inbox = self.inbox
        while not (inbox.over and not self.pending()):
            inbox.attend()
            self._tell()
            if self.closing and not self.pending():
                inbox.over = True  # and then a last look: a task that is made after it is refused
        self._end()

    def _tell(self) -> None:
        """Tells those who wait for futures, and runs callbacks."""
        inbox = self.inbox
        if self.broken is not None:
            inbox.give_up(self.broken)
        while inbox.slow:
            future, *answer = inbox.slow.popleft()
            try:
                future.finish(*answer)
            except BaseException:
                log.exception("%s: telling a future", self.config.name)

    def attend_for(self, future: Future, timeout: float | None) -> None:
        """In a callback that waits for another future: goes on attending, until that is done or the time is over."""
        end = None if timeout is None else time.monotonic() + timeout
        while not future.done() and (end is None or end > time.monotonic()):
            self.inbox.attend(future, -1 if end is None else max(0, int((end - time.monotonic()) * 1e9)))
            self._tell()

    def _watch(self) -> None:
        """The supervisor's death is no more than a pause: the next one takes over what waits."""
        fails, done = 0, self.inbox.done_so_far()
        while True:
            poll = select.poll()
            poll.register(self.background.pidfd, select.POLLIN)
            poll.register(self.ended, select.POLLIN)
            if any(fd == self.ended for fd, _ in poll.poll()):
                return
            fails = fails + 1 if self.inbox.done_so_far() == done else 1
            done = self.inbox.done_so_far()
            try:
                with self.guard:
                    if self.killing:
                        raise WorkerDied("the executor was ended while this call ran", "")
                    self._start_again(fails)
            except BaseException as error:
                self.broken = error
                self.inbox.wake()
                return

    def _start_again(self, fails: int) -> None:
        old = self.background
        status = reap(old.pid)
        os.close(old.pidfd)
        old.pidfd = -1
        log.warning("%s: its supervisor has ended (%s); another one follows", self.config.name, _how(status))
        if fails > STARTS_MAX:
            raise UpcallError(f"{fails} supervisors of {self.config.name} died in a row ({_how(status)})")
        self.background = start_child(TasksProc(self.config), self.launch)
        if self.killing:  # since it was looked at: the one that was told then has ended
            self.kill()

    # Its end

    def close(self) -> None:
        """No more tasks will come."""
        self.closing = self.inbox.closing = True
        self.inbox.wake()

    def kill(self) -> None:
        """Ends what runs, too: the futures that are not done fail."""
        self.closing = self.inbox.closing = self.killing = True
        with contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self.background.pidfd, signal.SIGINT)

    def _end(self) -> None:
        os.eventfd_write(self.ended, 1)
        self.watch.join()
        os.close(self.ended)
        with self.guard:
            attended = self.background.pidfd >= 0
            if attended:
                self._stop()
            else:
                self._kill_workers(self.remote.segment)
            self.sender = None
            self.inbox.out.retire()
            self.remote.close()
            if not attended:
                self._clean()
            unhost_vcore(self.seg, 0)
            self._remove()

    def _stop(self) -> None:
        background = self.background
        if not has_ended(background.pidfd):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(background.pidfd, signal.SIGTERM)
        reap(background.pid)
        os.close(background.pidfd)

    def _kill_workers(self, segment: files.Segment) -> None:
        """Workers whose supervisor has died, and could not be replaced."""
        for v in range(segment.geometry.max_vcores):
            host = open_host(segment, segment.seg, v)
            if host is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(host.pidfd, signal.SIGKILL)
                wait_for_end(host.pidfd)
                os.close(host.pidfd)

    def _clean(self) -> None:
        """Removes the workers' segment, which has no supervisor. Who is just dying is attached for a moment longer, and a
        worker that was just starting is not seen before it hosts its vcore: neither tells anybody, hence the pauses."""
        end = time.monotonic() + CLEAN_S
        with contextlib.suppress(NoSuchProcess):
            while not (found := clean(discard=True, only=[self.config.name])[0]).removed:
                if time.monotonic() > end:
                    log.error("%s: its segment stays: %s; upcall clean removes it", self.config.name, found.why)
                    return
                time.sleep(0.01)
                with contextlib.closing(open_segment(self.config.name)) as segment:
                    self._kill_workers(segment)

    def _remove(self) -> None:
        files.remove(self.segment)
        self.segment.close()


def _how(status: int | None) -> str:
    from ..host.worker import describe_exit

    return describe_exit(status)


def call_text(call: tuple[Any, tuple[Any, ...], dict[str, Any]] | None) -> str:
    """A call as a program would write it, not too long."""
    if call is None:
        return "a call"
    import functools
    import reprlib

    fn: Any
    fn, args, kwargs = call
    while isinstance(fn, functools.partial):
        fn, args, kwargs = fn.func, fn.args + args, {**fn.keywords, **kwargs}
    if type(fn).__name__ == "BatchedCalls":  # joblib's
        first, *others = fn.items
        return call_text(first) + (f" or {len(others)} more of its batch" if others else "")
    shown = [reprlib.repr(arg) for arg in args[:6]] + [
        f"{name}={reprlib.repr(value)}" for name, value in kwargs.items()
    ]
    return f"{getattr(fn, '__qualname__', None) or reprlib.repr(fn)}({', '.join(shown)})"
