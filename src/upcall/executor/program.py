"""What an executor's two processes are: the workers' (tasks go there), and the parent's (answers come there).

The parent hosts the only vcore of its own process by itself, in whatever thread looks (`front/tasks.Inbox`).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..host.handle import Handle
from ..kern import const
from ..proc import Proc
from .worker import Worker

TASKS, TASK = "tasks", "task"
ANSWERS, ANSWER = "answers", "answer"
PREEMPT_AFTER_MS = 10
"""A worker that turns out to be long in one task keeps others waiting for so long: they go to the next worker then."""


@dataclass(frozen=True)
class Config:
    """What an executor's supervisor and workers are told. `begin`: an initializer and its arguments, as they are for workers
    that are forked from the program, pickled for those that are not; `main` how those find the program's main module,
    `environment` what workers add to theirs before."""

    name: str
    workers: int
    memory: int
    retries: int
    tasks_per_child: int
    cloudpickle: bool
    begin: Any
    main: dict[str, Any] | None
    environment: dict[str, str]

    @property
    def answers(self) -> str:
        """The name of the process that answers go to."""
        return f"{self.name}.answers"

    @property
    def dumps(self) -> Callable[..., bytes]:
        """What pickles calls and results."""
        if self.cloudpickle:
            import cloudpickle

            found: Callable[..., bytes] = cloudpickle.dumps
            return found
        return pickle.dumps


class TasksProc(Proc):
    """The workers' process."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            config.name,
            vcores=config.workers,
            memory=config.memory,
            stop="now",
            preempt_after_ms=PREEMPT_AFTER_MS,
            on_supervisor_death="stop",
        )
        self.config = config
        self.worker = Worker(config)
        # Every death is counted by the event; how many a task may see is the worker's to say, which answers for it.
        self.queue(TASKS, max_redeliveries=const.REDELIVERIES_MAX)
        self.on(TASK, queue=TASKS)(self.worker.runner)

    def _lend_handle(self, handle: Handle) -> None:
        """In a worker, before its first task."""
        super()._lend_handle(handle)
        self.worker.connect(handle)


def answers_proc(config: Config) -> Proc:
    """The parent's process. It has no handlers: the inbox takes its events by itself."""
    proc = Proc(config.answers, vcores=1, memory=config.memory, host="thread", stop="now")
    proc.queue(ANSWERS)
    proc.on(ANSWER, queue=ANSWERS)(bool)
    return proc
