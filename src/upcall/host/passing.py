"""A process's end of taps: keeps copies of their descriptors, and passes them to whoever has the watcher's role.

One helper thread per attached process that taps, begun at its first use. It alone has the socket; others put what they want
into a queue, so that code which an interrupt runs on top of other code can ask too. When the watcher ends the thread waits
for the next one's socket to appear (inotify), and passes everything that is still in the segment: a tap lives as long as
anybody who has its descriptor.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import queue
import select
import signal
import traceback
from collections import deque
from typing import Any

from ..errors import ProcessGone, UpcallError
from ..kern import source as table
from .linux import exit_status, open_lookout
from .segment import Segment
from .wire import STANDBY_SOCKET, SUPERVISOR_SOCKET, Link, dial

log = logging.getLogger("upcall")
Reply = queue.SimpleQueue[Any]


class Passing:
    """The descriptors of taps that this process has. `fds` by the tap's id."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.fds: dict[int, int] = {}
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.inbox: deque[tuple[dict[str, Any], Reply | None]] = deque()
        self.waiting: dict[tuple[str, int], list[tuple[dict[str, Any], Reply]]] = {}
        self.begun = self.closed = False

    def __del__(self) -> None:
        # Not before: whoever still has us may say something at any time, and would write to another's descriptor.
        os.close(self.wake)

    def _begin(self) -> None:
        """Starts the thread. Not with `threading`, whose locks interrupted code may hold; with all signals blocked, as
        they are others' business."""
        if self.begun:
            return
        self.begun = True
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            _thread.start_new_thread(self._run, ())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def say(self, said: dict[str, Any]) -> None:
        """Says something to the watcher, if there is one now."""
        self.inbox.append((said, None))
        os.eventfd_write(self.wake, 1)
        self._begin()

    def ask(self, said: dict[str, Any]) -> dict[str, Any]:
        """Asks the watcher, or the next one, and waits for the answer. ProcessGone if the process has ended."""
        reply: Reply = queue.SimpleQueue()
        self.inbox.append((said, reply))
        os.eventfd_write(self.wake, 1)
        self._begin()
        if self.closed:
            reply.put(None)  # the thread may have looked into the queue for the last time
        answer: dict[str, Any] | None = reply.get()
        if answer is None:
            raise ProcessGone(f"process {self.segment.name!r} has ended: it attends no taps and watches")
        return answer

    def hold(self, ident: int, fd: int) -> None:
        """Passes a descriptor, which is ours from now on. UpcallError if the watcher cannot attend it."""
        self.fds[ident] = fd
        answer = self.ask({"tap": ident})
        if answer["error"]:
            self.let_go(ident)
            raise UpcallError(f"cannot tap: {answer['error']}")

    def keep(self, ident: int, fd: int) -> None:
        """Has a copy of a descriptor that the watcher has already."""
        self.fds[ident] = fd
        self._begin()

    def get(self, ident: int) -> int:
        """The descriptor of a tap, -1 if the tap is closed."""
        if ident not in self.fds:
            self.ask({"get": ident})
        return self.fds.get(ident, -1)

    def let_go(self, ident: int) -> None:
        """Closes our copy."""
        fd = self.fds.pop(ident, -1)
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """The handle is closed. The thread closes what there is."""
        self.closed = True
        if self.begun:
            os.eventfd_write(self.wake, 1)
        else:
            self._end()

    # The thread

    def _run(self) -> None:
        try:
            while not self.closed:
                link = self._find()
                if link is None:
                    break
                with contextlib.closing(link), contextlib.suppress(ConnectionError):
                    self._serve(link)
        except BaseException:
            if not self.closed:
                log.error("%s: cannot pass descriptors\n%s", self.segment.name, traceback.format_exc().rstrip())
        finally:
            self._end()

    def _find(self) -> Link | None:
        """Connects to the watcher; waits until there is one. None if the process is gone."""
        try:
            lookout = open_lookout(self.segment.path)
        except FileNotFoundError:
            return None
        try:
            poll = select.poll()  # no `select`, which has no place for the descriptors of a program with many
            poll.register(lookout, select.POLLIN)
            poll.register(self.wake, select.POLLIN)
            # Looked out for before the look: one that appears after it is seen.
            while not self.closed:
                for name in (SUPERVISOR_SOCKET, STANDBY_SOCKET):
                    link = dial(self.segment.path, name)
                    if link is not None:
                        return link
                poll.poll()
                with contextlib.suppress(BlockingIOError):
                    os.read(lookout, 4096)
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self.wake)
                if not self.segment.path.exists():
                    return None
            return None
        except FileNotFoundError:
            return None
        finally:
            os.close(lookout)

    def _serve(self, link: Link) -> None:
        """Until the watcher ends, or we do."""
        out: deque[tuple[dict[str, Any], int]] = deque()
        for ident, fd in list(self.fds.items()):
            if table.source_state(self.segment.seg, ident):
                if ("tap", ident) not in self.waiting:
                    out.append(({"tap": ident, "again": True}, fd))
            else:
                self.let_go(ident)  # closed, and who should have told us was dead
        for asked in list(self.waiting.values()):
            out.extend((said, self._fd_for(said)) for said, _ in asked)
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        if link.end >= 0:
            poll.register(link.end, select.POLLIN)
        while not self.closed:
            self._take(out)
            while out:
                said, fd = out[0]
                try:
                    link.send(said, *([fd] if fd >= 0 else []))
                except BlockingIOError:
                    break
                except ConnectionError:
                    raise
                except OSError as error:  # a descriptor that somebody has closed behind our back
                    self._answer("tap", said["tap"], {"error": str(error)})
                out.popleft()
            poll.register(link, select.POLLIN | (select.POLLOUT if out else 0))
            over = link.end in (fd for fd, _ in poll.poll())
            while (got := link.receive()) is not None:
                self._heard(*got, out)
            if over:
                raise ConnectionResetError

    def _fd_for(self, said: dict[str, Any]) -> int:
        return self.fds.get(said["tap"], -1) if "tap" in said else -1

    def _take(self, out: deque[tuple[dict[str, Any], int]]) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake)
        while self.inbox:
            said, reply = self.inbox.popleft()
            if reply is not None:
                ((kind, ident),) = said.items()
                self.waiting.setdefault((kind, ident), []).append((said, reply))
            out.append((said, self._fd_for(said)))

    def _heard(self, said: dict[str, Any], fds: list[int], out: deque[tuple[dict[str, Any], int]]) -> None:
        match said:
            case {"get": int() as ident}:
                if fds and ident not in self.fds:
                    self.fds[ident] = fds.pop()
                self._answer("get", ident, said)
            case {"tap": int() as ident} | {"hello": int() as ident}:
                self._answer("tap" if "tap" in said else "hello", ident, said)
            case {"gone": int() as ident}:
                self.let_go(ident)
            case {"status": int() as ident, "pid": int() as pid}:
                out.append(({"status": ident, "is": exit_status(pid)}, -1))
        for fd in fds:
            os.close(fd)

    def _answer(self, kind: str, ident: int, said: dict[str, Any]) -> None:
        for _, reply in self.waiting.pop((kind, ident), []):
            reply.put(said)

    def _end(self) -> None:
        self.closed = True
        for ident in list(self.fds):
            self.let_go(ident)
        for asked in list(self.waiting.values()):
            for _, reply in asked:
                reply.put(None)
        while self.inbox:
            _, late = self.inbox.popleft()
            if late is not None:
                late.put(None)


def check_pollable(fd: int) -> None:
    """ValueError for what has no readiness, OSError for what is no descriptor."""
    with contextlib.closing(select.epoll(1)) as epoll:
        try:
            epoll.register(fd, select.EPOLLIN)
        except PermissionError:
            raise ValueError(
                f"fd {fd} is a regular file or a folder, always ready: read it where you are, or with proc.call"
            ) from None
