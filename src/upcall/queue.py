"""Event queues and vcores, as a program sends to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from .flags import EventFlag, EventType
from .host import tables
from .host.dead import DeadLetter, discard_letters, read_letters, resend_letters
from .kern import const

if TYPE_CHECKING:
    from .host.handle import Handle

Buffer = Any
"""A bytes-like object: bytes, bytearray, memoryview, array, a numpy array."""


class _Source(Protocol):
    """What gives a queue its handle, once there is a segment."""

    def handle(self) -> Handle: ...


class Queue:
    """An event queue of a process. Made by `Proc.queue` and `Remote.queue`.

    `name` its name, `send` and `send_many` deliver events to it. G1 to G6 and G9 hold for a queue with a mailbox of its
    own (the default).
    """

    def __init__(self, source: _Source, name: str) -> None:
        self._source = source
        self.name = name

    def send(
        self,
        type: str | EventType,
        payload: Buffer = b"",
        *,
        arg1: int = 0,
        arg2: int = 0,
        arg3: int = 0,
        arg4: int = 0,
        vcore: int | None = None,
    ) -> None:
        """Sends one event. When this returns the event will be handled at least once (G1), and is announced (G2).

        `type` a registered name or an EventType; `payload` bytes-like, copied; `arg1` 0..2**16-1, `arg2` 0..2**32-1,
        `arg3`, `arg4` 0..2**64-1; `vcore` the vcore proposed, for a VCORE_APPRO queue.

        NoSuchType, VCoreIdError, FlagError (a NOMSG queue with a payload or arguments), OverflowError (an argument too
        large), ValueError (a payload that never fits: more than half of the process's memory), MailboxFull (no room, and the
        queue raises), MailboxBusy (G11), ProcessGone, ForkedHandle. After an error nothing was sent.
        """
        self._bind().send(type, payload, arg1=arg1, arg2=arg2, arg3=arg3, arg4=arg4, vcore=vcore)

    def send_many(self, type: str | EventType, payloads: Iterable[Buffer]) -> int:
        """Sends an event for each payload, in order; returns how many. Cheaper per event than `send`: the process is told
        in groups. After MailboxFull, MailboxBusy or ProcessGone, `error.sent` events have been sent."""
        sent: int = self._bind().send_many(type, payloads)
        return sent

    async def asend(self, type: str | EventType, payload: Buffer = b"", **options: int | None) -> None:
        """As `send`, in an event loop (asyncio, or trio through anyio): where `send` would wait for room, it awaits it.
        Cancelled meanwhile, it has sent nothing."""
        from .aio import send_when_room

        await send_when_room(self, type, payload, **options)

    async def asend_many(self, type: str | EventType, payloads: Iterable[Buffer]) -> int:
        """As `send_many`, in an event loop, as `asend` is. After any error, and when it is cancelled while it waits,
        `error.sent` events have been sent."""
        from .aio import send_many_when_room

        return await send_many_when_room(self, type, payloads)

    def _bind(self) -> Any:
        sender = self._source.handle().sender(self._source.handle().queue_number(self.name))
        # From now on the instance has the compiled methods themselves; they find out about other threads by themselves.
        self.__dict__["send"] = sender.send
        self.__dict__["send_many"] = sender.send_many
        return sender

    def _unbind(self) -> None:
        self.__dict__.pop("send", None)
        self.__dict__.pop("send_many", None)

    @property
    def flags(self) -> EventFlag:
        """The queue's delivery flags."""
        handle = self._source.handle()
        return tables.queue_flags(handle.segment, handle.queue_number(self.name))

    def __repr__(self) -> str:
        return f"<upcall.Queue {self.name!r}>"


class VCore:
    """One vcore of a process, to send mail to. Made by `Remote.vcore` and `Proc.vcore`."""

    def __init__(self, handle: Handle, vcoreid: int) -> None:
        self._handle = handle
        self.id = handle.check_vcore(vcoreid)

    def send(
        self,
        type: str | EventType,
        payload: Buffer = b"",
        *,
        arg1: int = 0,
        arg2: int = 0,
        arg3: int = 0,
        arg4: int = 0,
        private: bool = False,
    ) -> None:
        """Sends one event to this vcore's own mailbox (`post_vcore_event`). `private`: this vcore handles it or nobody
        (G7); otherwise another one may, if this one is offline. Errors as for `Queue.send`."""
        sender = self._handle.vcore_sender()
        status = sender.post_vcore(type, payload, self.id, private, arg1, arg2, arg3, arg4)
        if status != const.OK:
            self._handle.fail(status, const.NO_VCORE)

    def __repr__(self) -> str:
        return f"<upcall.VCore {self.id} of {self._handle.name!r}>"


class Doors:
    """What `Remote` and a started `Proc` can both send, beside queues."""

    def handle(self) -> Handle:
        """The attached segment."""
        raise NotImplementedError

    def vcore(self, vcoreid: int) -> VCore:
        """One vcore, to send mail to. VCoreIdError if the process does not have it."""
        return VCore(self.handle(), vcoreid)

    def signal(self, signum: int) -> bool:
        """Sends EV_POSIX_SIGNAL with the signal's number as arg1 (`send_posix_signal`). False if the process has
        registered no queue for it. ValueError for a number outside 1..64."""
        if isinstance(signum, bool) or not isinstance(signum, int) or not 1 <= signum <= 64:
            raise ValueError(f"signal number {signum!r} is outside 1..64")
        return self._sent(self.handle().vcore_sender().signal(int(signum)))

    def kernel_event(
        self, type: EventType, payload: Buffer = b"", *, arg1: int = 0, arg2: int = 0, arg3: int = 0, arg4: int = 0
    ) -> bool:
        """Sends a kernel event to the queue registered for its type (`send_kernel_event`). False if there is none."""
        handle = self.handle()
        if not isinstance(type, EventType):
            raise TypeError(f"kernel event type {type!r} must be an EventType")
        size = memoryview(payload).nbytes
        if size > const.INLINE_MAX:
            raise ValueError(f"payload of {size} bytes: a kernel event carries at most {const.INLINE_MAX}")
        return self._sent(handle.vcore_sender().kernel_event(int(type), payload, arg1, arg2, arg3, arg4))

    def _sent(self, status: int) -> bool:
        if status == const.BAD_QUEUE:
            return False
        if status != const.OK:
            self.handle().fail(status, const.NO_VCORE)
        return True

    def dead_letters(self, queue: str | None = None, *, payload: bool = True) -> list[DeadLetter]:
        """The events that are not delivered any more, because workers have died with them (G4), oldest first; those of one
        queue if it is named. `payload` False leaves the payloads out. NoSuchQueue."""
        return read_letters(self.handle(), queue, payload=payload)

    def resend(self, letters: Iterable[DeadLetter | int] | None = None) -> int:
        """Sends dead letters, given as they are or by their ids, to where they were sent first; None: all that are there
        now. From then on they are ordinary events, with no deaths counted. Returns how many: one that somebody else has
        re-sent or discarded meanwhile is left out. Whoever dies in between loses none; one may be sent twice then.

        Errors as for `Queue.send`, but it never waits for room: MailboxFull. `error.sent` letters went before.
        """
        return resend_letters(self.handle(), letters)

    def discard(self, letters: Iterable[DeadLetter | int] | None = None) -> int:
        """Throws dead letters away, given as they are or by their ids; None: all that are there now. Returns how many."""
        return discard_letters(self.handle(), letters)

    def stats(self) -> dict[str, Any]:
        """The process's counters, as `upcall ps --json` shows them."""
        from .inspect import snapshot

        return snapshot(self.handle().name).to_json()
