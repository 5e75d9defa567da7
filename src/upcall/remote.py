"""The sender's side: `upcall.connect(name)`."""

from __future__ import annotations

from types import TracebackType

from .host.handle import Handle
from .host.segment import open_segment
from .queue import Doors, Queue
from .sources.alarm import AlarmDoors


class Remote(Doors, AlarmDoors):
    """A process that this one sends to. Made by :func:`connect`; a context manager; `close` it when done.

    May be used by any number of threads: each is a sender of its own. Not in a forked child, which gets ForkedHandle.
    """

    def __init__(self, name: str) -> None:
        self._handle = Handle(open_segment(name))
        self.name = name
        self._queues: dict[str, Queue] = {}

    def handle(self) -> Handle:
        """The attached segment. SegmentError after `close`."""
        self._handle.check_open()
        return self._handle

    def queue(self, name: str) -> Queue:
        """An event queue of the process. NoSuchQueue, with the queues there are."""
        handle = self.handle()
        if name not in self._queues:
            handle.queue_number(name)
            self._queues[name] = Queue(self, name)
            self._queues[name]._bind()
        return self._queues[name]

    @property
    def queues(self) -> list[str]:
        """The names of the process's queues."""
        self.handle().refresh()
        return sorted(self._handle.queues)

    def close(self) -> None:
        """Detaches. Events that were sent stay sent."""
        for queue in self._queues.values():
            queue._unbind()
        self._queues.clear()
        self._handle.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<upcall.Remote {self.name!r}>"


def connect(name: str) -> Remote:
    """Attaches to a process, running or not, as a sender. NoSuchProcess if it has no segment; SegmentError if the file
    is not a segment of this version."""
    return Remote(name)
