"""The supervisor of an executor's workers: a child of the program, or a fresh interpreter.

Beside a supervisor's usual work it tells the parent which task a dead worker had in its hands, and how that one died:
before the task can be delivered again, so the parent knows it by the time that the next worker answers for it. When the
parent ends without a word, it kills the workers and removes both segments.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import sys
from typing import BinaryIO

from ..errors import NoSuchProcess, UpcallError
from ..front.tasks import ANSWER_DEATH
from ..host import segment as files
from ..host import tables
from ..host.background import fork_supervisor, supervise
from ..host.definition import Program
from ..host.messages import messages
from ..host.settle import host_name
from ..host.supervisor import Starter, Supervisor, Worker
from ..inspect.clean import clean
from ..kern import const
from ..kern.layout import evq_at
from ..remote import connect
from .program import ANSWER, ANSWERS, TASKS, Config, TasksProc


class TaskSupervisor(Supervisor):
    """Attends the workers of one executor."""

    proc: TasksProc
    alone = False
    """The parent has ended."""

    def ended(self, worker: Worker, pid: int, status: int | None) -> None:
        """Tells the parent of a task that has lost its worker. One that exits with 0 has done all its tasks."""
        if status == 0:
            worker.asked = True
        elif not self.alone and status is not None:
            dead = host_name(self.segment, worker.vcoreid)
            tasks = [number for where, number in tasks_in(self.segment, const.TAKEN, owner=dead)]
            if tasks:
                with contextlib.suppress(UpcallError), connect(self.proc.config.answers) as parent:
                    for number in tasks:
                        parent.queue(ANSWERS).send(ANSWER, arg2=ANSWER_DEATH, arg3=number, arg4=pid | status << 32)

    def _signalled(self) -> None:
        """SIGTERM: the parent is through. SIGINT: it wants the end at once, whatever runs."""
        for number in self.signals.take():
            self.at_once = self.at_once or number == signal.SIGINT
            self.stop("now")

    def _starter_ended(self) -> None:
        self.alone = self.at_once = True
        super()._starter_ended()
        self.stop("now")

    def let_go(self) -> bool:
        """The end: what waits is nobody's any more."""
        if not super().let_go():
            files.remove(self.segment)
        if self.alone:
            with contextlib.suppress(NoSuchProcess):
                clean(discard=True, only=[self.proc.config.answers])
        return True


def tasks_in(
    segment: files.Segment, state: int, *, owner: int | None = None, number: int | None = None
) -> list[tuple[int, int]]:
    """Place and number of the tasks in this state (READY, TAKEN); of those in the hands of one worker, or of one number."""
    queue = next(queue for queue, name in tables.queues(segment).items() if name == TASKS)
    mbox = segment.u32(evq_at(segment.seg, queue) + const.EVQ_MBOX) - 1
    return [
        (message.where, message.arg3)
        for message in messages(segment, mbox, number)
        if message.word & 15 == state and owner in (None, message.word >> 32)
    ]


fork_server = functools.partial(fork_supervisor, kind=TaskSupervisor)
"""Launches the supervisor as a fork of the program: its workers have everything that the program had then."""


def spawn_server(proc: Program, starter: Starter, pipe: BinaryIO) -> int:
    """Launches it as a fresh interpreter, from which the workers are forked: nothing of the program's threads, locks and
    memory is in them. Its pid."""
    assert isinstance(proc, TasksProc)
    told, tell = os.pipe()
    arguments = [sys.executable, "-c", "from upcall.executor.server import main; main()", str(os.getpid())]
    # It has died already, which its starter will see.
    with contextlib.suppress(BrokenPipeError), open(tell, "wb") as out:
        with open(told, "rb") as config:  # its only reader: a dead one does not keep us writing
            actions = [(os.POSIX_SPAWN_DUP2, config.fileno(), 0), (os.POSIX_SPAWN_DUP2, starter.pipe, 3)]
            path = os.pathsep.join([os.path.dirname(os.path.dirname(os.path.dirname(__file__))), *sys.path])
            environment = {**os.environ, "PYTHONPATH": path}
            pid = os.posix_spawn(sys.executable, arguments, environment, file_actions=actions)
        pickle.dump((os.environ.get("PYTHONPATH"), proc.config), out)
    return pid


def main() -> None:
    """A fresh interpreter's life as a supervisor."""
    parent = int(sys.argv[1])
    starter = Starter(os.pidfd_open(parent), 3)
    os.set_inheritable(3, False)
    if os.getppid() != parent:
        sys.exit(1)
    before, config = pickle.load(sys.stdin.buffer)
    os.environ.pop("PYTHONPATH", None)
    if before is not None:
        os.environ["PYTHONPATH"] = before
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    assert isinstance(config, Config)
    sys.exit(supervise(TasksProc(config), starter, TaskSupervisor))
