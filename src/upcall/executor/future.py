"""The futures of an executor: `concurrent.futures.Future`, which asyncio and others insist on, over `TaskState`."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from ..front.tasks import TaskState

PENDING, FINISHED = "PENDING", "FINISHED"
CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")


class Future(TaskState, concurrent.futures.Future[Any]):
    """The result of a task, to come. As `concurrent.futures.Future`."""

    def cancel(self) -> bool:
        """Takes the task back, unless a worker has it already. True if it will not run."""
        inbox = self.inbox
        if self._state in CANCELLED:
            return True
        if inbox is None or not inbox.owner.take_back(self):
            return self._state in CANCELLED
        with self._condition:
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        self.set_running_or_notify_cancel()  # tells those in `wait` and `as_completed`
        return True

    def running(self) -> bool:
        """Whether a worker has the task in its hands. Looks into the segment: for people, not for loops."""
        inbox = self.inbox
        return self._state == PENDING and self.sent and inbox is not None and inbox.owner.is_taken(self)

    def done(self) -> bool:
        """Whether it has a result or an exception, or was cancelled."""
        return self._state == FINISHED or self._state in CANCELLED

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state in CANCELLED
