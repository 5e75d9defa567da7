"""Receiving and sending in a program that has an event loop of its own: asyncio, uvloop, or trio through anyio.

    async with upcall.aio.Process("me", types=["order"]) as me:
        async for ev in me.queue("in"):
            print(bytes(ev.payload))

`asend` and `asend_many` of a queue wait for room without holding up the loop:
`await remote.queue("orders").asend("order", b"...")`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .errors import MailboxFull
from .front import event, port
from .host import tables
from .kern import const
from .kern.ucq import room_word, stop_wanting, want_room
from .proc import Proc

if TYPE_CHECKING:
    from .host.receiver import Receiver
    from .queue import Queue as SendQueue

CHUNK = 1024
"""So many payloads of a list are tried at once."""


def _anyio() -> Any:
    """anyio, for a loop that is not asyncio's; None for one that is."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        try:
            import anyio
        except ImportError:
            raise RuntimeError("no asyncio loop runs here; for trio: pip install anyio") from None
        return anyio
    return None


async def _readable(process: Process) -> None:
    """Waits at a process's file, until that is readable or about to be closed."""
    fd, anyio = process.fileno(), _anyio()
    if anyio is not None:
        process._end_wait = functools.partial(anyio.notify_closing, fd)
        with contextlib.suppress(anyio.ClosedResourceError):
            await anyio.wait_readable(fd)
        return
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    reads = True

    def tell() -> None:
        nonlocal reads
        if reads:  # once: its number may be another file's by the time that we run again
            reads = False
            loop.remove_reader(fd)
        if not told.done():
            told.set_result(None)

    loop.add_reader(fd, tell)
    process._end_wait = tell
    try:
        await told
    finally:
        tell()


async def _in_thread(function: Callable[..., object], *args: object) -> None:
    anyio = _anyio()
    if anyio is not None:
        await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
    else:
        await asyncio.to_thread(function, *args)


class Event:
    """An event that was taken from a queue: all that :class:`upcall.Event` has, and `done`."""

    __slots__ = ("_event", "_receiver", "_settled")

    def __init__(self, receiver: Receiver, taken: event.Event) -> None:
        self._receiver, self._event, self._settled = receiver, taken, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._event, name)

    def done(self) -> None:
        """The event has been handled. A second call does nothing; SegmentError after the process has stopped."""
        if not self._settled:
            self._receiver.done(self._event)
            self._settled = True

    def __repr__(self) -> str:
        return repr(self._event)


class _Events:
    """The events of a queue, for `async for`."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.last: Event | None = None

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> Event:
        if self.last is not None:
            self.last.done()
        self.last = None
        self.last = await self.queue.get()
        return self.last


class Queue:
    """A queue to receive from. Made by :meth:`Process.queue`; any number of tasks may wait for its events."""

    def __init__(self, process: Process, name: str, number: int) -> None:
        self._process, self._number = process, number
        self.name = name

    def take(self) -> Event | None:
        """The next event, or None if none waits: then `Process.fileno()` is not readable until one does. For loops of
        other kinds (selectors, Qt, GLib)."""
        return self._process._take(self._number, None)

    async def get(self) -> Event:
        """The next event; waits for it. It is in hand until its `done()`: if this program dies it is delivered again, if
        the process stops it waits in the segment. Cancelled, it has taken none. RuntimeError if the process stops
        meanwhile."""
        return await self._process._next(self._number)

    def __aiter__(self) -> AsyncIterator[Event]:
        """The events, each done when the loop's body has ended; not when it is left by an exception or a `break`."""
        return _Events(self)

    def __repr__(self) -> str:
        return f"<upcall.aio.Queue {self.name!r}>"


class Process:
    """A single-core process whose vcore is hosted here, by the tasks that wait for its events. An async context manager
    (and a plain one): it starts, and stops at the end of the block. What waits then, and what is in hand and not done, stays
    in the segment for the next start of this name; with nothing of the kind the segment goes.

    `types` the event types that others may send (more with `Queue`'s); `memory` as for :class:`upcall.Proc`. NameInUse if
    the name runs already.
    """

    def __init__(self, name: str, *, types: Iterable[str] = (), memory: int | str = "256 MiB") -> None:
        self.name = name
        self._proc = Proc(name, vcores=1, host="thread", memory=memory, stop="now")
        self._types = [types] if isinstance(types, str) else list(types)
        self._receiver: Receiver | None = None
        self._waiting: dict[int, int] = {}  # queue -> how many tasks wait for it
        self._news: Any = None
        self._end_wait: Callable[[], object] = lambda: None
        """Ends the wait at the file."""

    def queue(self, name: str, *, types: Iterable[str] = ()) -> Queue:
        """A queue of the running process, made if it is not there; `types` more event types that others may send."""
        receiver = self._running()
        self._register([types] if isinstance(types, str) else types)
        return Queue(self, name, receiver.open_queue(name))

    def fileno(self) -> int:
        """Readable whenever something waits in a queue (now and then also when nothing does): take from all queues until
        there is None, then wait for it."""
        return self._running().fileno()

    def _register(self, types: Iterable[str]) -> None:
        receiver = self._running()
        for kind in types:
            tables.check_type_name(kind)
            if kind not in tables.types(receiver.segment).values():
                tables.register_type(receiver.segment, receiver.seg, kind)
        receiver.handle.refresh()

    def _running(self) -> Receiver:
        if self._receiver is None:
            raise RuntimeError(f"process {self.name!r} does not run: use it in `async with`")
        self._receiver.check()
        return self._receiver

    def _take(self, number: int, wanted: Iterable[int] | None) -> Event | None:
        receiver = self._running()
        every = receiver.dispatcher.threads
        found = receiver.take(number, every if wanted is None else set(wanted))
        return None if found is None else Event(receiver, found)

    async def _next(self, number: int) -> Event:
        self._waiting[number] = self._waiting.get(number, 0) + 1
        try:
            while True:
                found = self._take(number, self._waiting)
                if found is not None:
                    return found
                await self._told()
        finally:
            self._waiting[number] -= 1
            if not self._waiting[number]:
                del self._waiting[number]

    async def _told(self) -> None:
        """Waits until something may wait. One task waits at the file, the others for it."""
        if self._news is not None:
            await self._news.wait()
            return
        anyio = _anyio()
        self._news = news = (asyncio if anyio is None else anyio).Event()
        try:
            await _readable(self)
        finally:
            self._news, self._end_wait = None, lambda: None
            news.set()

    def __enter__(self) -> Process:
        if self._receiver is not None:
            raise RuntimeError(f"process {self.name!r} runs already")
        from .host.receiver import Receiver

        self._receiver = Receiver(self._proc)
        self._register(self._types)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None and not receiver.segment.attachment.forked():  # a forked child leaves the block too
            self._end_wait()  # else nobody would: a closed file is never readable
            receiver.close()

    async def __aenter__(self) -> Process:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<upcall.aio.Process {self.name!r}>"


async def send_when_room(queue: SendQueue, *args: Any, **options: Any) -> None:
    """`Queue.asend`: cancelled while it waits, it has sent nothing."""
    await _when_room(queue, lambda: queue.send(*args, **options))


async def send_many_when_room(queue: SendQueue, kind: Any, payloads: Iterable[Any]) -> int:
    """`Queue.asend_many`. A list goes in chunks, so that little is copied when room comes for a few events at a time; of
    another iterable, which may pause, each event goes before the next payload is asked for."""
    size = CHUNK if isinstance(payloads, (list, tuple)) else 1
    rest = iter(payloads)
    sent = 0
    chunk: list[Any] = []

    def send() -> None:
        nonlocal sent
        try:
            went = queue.send_many(kind, chunk)
        except BaseException as error:
            went = getattr(error, "sent", 0)
            raise
        finally:
            sent += went
            del chunk[:went]

    try:
        while chunk := list(itertools.islice(rest, size)):
            await _when_room(queue, send)
    except BaseException as error:
        queue._source.handle().note_sent(error, sent)
        raise
    return sent


async def _when_room(queue: SendQueue, send: Callable[[], None]) -> None:
    """Tries to send, and waits for room in a helper thread."""
    handle = queue._source.handle()
    sender = handle.sender(handle.queue_number(queue.name))
    while True:
        at = room_word(sender.s, sender.mbox)
        seen = want_room(sender.s, at)
        try:
            # The try after being counted: room given before that would wake nobody.
            try:
                with handle.not_blocking():
                    send()
                return
            except MailboxFull:
                if sender.on_full != const.ON_FULL_BLOCK:
                    raise
            # A file system that was full tells nobody when it is not: hence once a second another try.
            await _in_thread(port.wait_word, sender.s, at, seen, 1_000_000_000)
        finally:
            stop_wanting(sender.s, at)
