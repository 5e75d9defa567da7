"""A worker of an executor: what it does beside running tasks (`front/tasks.Runner`)."""

from __future__ import annotations

import os
import pickle
import threading
import traceback
from typing import TYPE_CHECKING, Any

from ..front import port
from ..front.parts import PartsSender
from ..front.runner import Runner, parcel_of
from ..host.handle import Handle
from ..host.segment import open_segment
from .buffers import outgoing_one, too_large

if TYPE_CHECKING:
    from .program import Config

preparing = threading.Event()
"""The program's main module is being imported, in a worker."""


class Worker:
    """The `owner` of a worker's runner. Made by the parent, or the supervisor; connected in the worker."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.dumps = config.dumps
        self.runner = Runner(self, config.retries, config.tasks_per_child, self.dumps)

    def connect(self, handle: Any) -> None:
        """In a worker: attaches to the parent's process, as a sender of answers."""
        from .program import ANSWER, ANSWERS

        self.handle = handle
        self.answers = Handle(open_segment(self.config.answers))
        segment, seg = self.answers.segment, self.answers.thread().seg
        number = self.answers.queue_number(ANSWERS)
        out = PartsSender(segment.attachment, seg, self.answers, number, port.current_thread())
        self.runner.connect(out, self.answers.types[ANSWER], handle.segment.seg)

    def begin(self) -> None:
        """Before the first task: imports the program's main module if this worker was not forked from the program, and runs
        the initializer. What they raise is the task's, and this worker ends: the next one tries again."""
        try:
            begin = self.config.begin
            os.environ.update(self.config.environment)
            if self.config.main is not None:
                _import_main(self.config.main)
                begin = pickle.loads(begin)
            if begin is not None:
                initializer, arguments = begin
                initializer(*arguments)
        except BaseException as error:
            error.add_note("raised while a worker of the executor began: its initializer, or the import of the program")
            self.recycle()
            raise

    def recycle(self) -> None:
        """This worker ends after the task in its hands; another one follows."""
        self.handle.leave()

    def outgoing(self, value: object) -> object:
        """A large buffer, to be sent beside the pickle."""
        return outgoing_one(value)

    def too_large(self, size: int, limit: int) -> Exception:
        """A result that never fits."""
        return too_large("a result", size, limit)

    def describe(self, error: BaseException, limit: int) -> object:
        """What a task raised, ready to be sent. If it cannot be pickled, that is said instead."""
        text = "".join(traceback.format_exception(error))
        try:
            parcel = parcel_of(self.dumps, (error, text))
            if parcel.size <= limit:
                return parcel
            why: object = f"its pickle has {parcel.size} bytes"
        except Exception as second:
            why = second
        unpicklable = pickle.PicklingError(f"the task raised {_short(error)}, which cannot be sent: {why}")
        return parcel_of(self.dumps, (unpicklable, text[-65536:]))


def _short(error: BaseException) -> str:
    try:
        return f"{type(error).__qualname__}: {error}"[:500]
    except Exception:
        return type(error).__qualname__


def _import_main(main: dict[str, Any]) -> None:
    """As `multiprocessing` does in a process that it has spawned."""
    from multiprocessing import spawn

    preparing.set()
    try:
        spawn.prepare(main)
    finally:
        preparing.clear()
