"""One process's use of a segment: names and numbers, one sender per thread and queue, and what errors say.

`Handle` is what `Remote`, `Proc` and a worker have in common. Each thread that sends gets an attach slot of its own at its
first send (G6 speaks of the sender, an attached thread), and gives it back when it ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from ..errors import (
    FlagError,
    ForkedHandle,
    MailboxBusy,
    MailboxFull,
    NoSuchQueue,
    NoSuchType,
    ProcessGone,
    SegmentError,
    UpcallError,
    VCoreIdError,
)
from ..flags import EventFlag, EventType
from ..front import port
from ..kern import const
from ..kern.layout import Seg, evq_at, mbox_at
from . import tables
from .segment import Segment

if TYPE_CHECKING:
    from .passing import Passing


class _Thread:
    """A thread's name in the segment, given back when the thread ends (or the handle is closed)."""

    def __init__(self, segment: Segment, seg: Seg) -> None:
        self.segment = segment
        self.seg = seg
        self.senders: dict[int, port.Sender] = {}

    def __del__(self) -> None:
        for sender in self.senders.values():
            sender.retire()
        if not self.segment.closed and not self.segment.attachment.forked():
            self.segment.detach(self.seg)


class Handle:
    """An attached segment. `may_register`: unknown types are registered on first use (the owner), not refused."""

    def __init__(self, segment: Segment, *, role: int = const.ROLE_SENDER, may_register: bool = False) -> None:
        self.segment = segment
        self.name = segment.name
        self.role = role
        self.may_register = may_register
        self.pid = os.getpid()
        self.types: dict[object, int] = dict(tables.KERNEL_TYPES)
        self.queues: dict[str, int] = {}
        self._type_names: dict[int, str] = {
            number: kind.name for kind, number in tables.KERNEL_TYPES.items() if isinstance(kind, EventType)
        }
        self._queue_names: dict[int, str | None] = {0: None}
        self._local = threading.local()
        self._passing: Passing | None = None
        self.refresh()

    def refresh(self) -> None:
        """Reads the tables of names again."""
        for number, name in tables.types(self.segment).items():
            # Interned, as literals in programs are: the look-up then compares identities.
            self.types[sys.intern(name)] = number
            self._type_names[number] = name
        for number, name in tables.queues(self.segment).items():
            self.queues[name] = number
            self._queue_names[number + 1] = name

    def thread(self) -> _Thread:
        """The calling thread's own name; made at first use."""
        self.check_open()
        found: _Thread | None = getattr(self._local, "thread", None)
        if found is None:
            found = _Thread(self.segment, self.segment.attach(self.role))
            self._local.thread = found
        return found

    def give_back_name(self) -> None:
        """Gives the calling thread's own name back."""
        mine: _Thread | None = self._local.__dict__.pop("thread", None)
        if mine is not None:
            for sender in mine.senders.values():
                sender.retire()
            mine.senders.clear()  # they lead back to this handle, and so to the thread

    def adopt(self, seg: Seg) -> None:
        """Lets the calling thread send under a name that it has already: a vcore's."""
        self._local.thread = _Thread(self.segment, seg)

    def sender(self, queue: int) -> port.Sender:
        """The calling thread's sender for a queue."""
        mine = self.thread()
        found = mine.senders.get(queue)
        if found is None:
            found = port.Sender(self.segment.attachment, mine.seg, self, queue, port.current_thread())
            mine.senders[queue] = found
        return found

    def vcore_sender(self) -> port.Sender:
        """The calling thread's sender for mail to vcores, and kernel events."""
        return self.sender(const.NO_VCORE)

    def queue_number(self, name: str) -> int:
        """A queue's number. NoSuchQueue, with the queues there are."""
        if name not in self.queues:
            self.refresh()
        if name not in self.queues:
            known = ", ".join(sorted(self.queues)) or "none"
            raise NoSuchQueue(f"process {self.name!r} has no queue {name!r} (it has: {known})")
        return self.queues[name]

    @property
    def passing(self) -> Passing:
        """This process's end of taps; made at first use."""
        self.check_open()
        if self._passing is None:
            from .passing import Passing

            self._passing = Passing(self.segment)
        return self._passing

    def close(self) -> None:
        """Detaches; every later use is an error. In a forked child, where nothing is attached: nothing."""
        if self.pid == os.getpid():
            if self._passing is not None:
                self._passing.close()
            self._local = threading.local()
            self.segment.close()

    def check_open(self) -> None:
        """ForkedHandle in a child of the process that attached; SegmentError after close."""
        if self.segment.attachment.forked():
            self.fail_forked()
        if self.segment.closed:
            raise SegmentError(f"this handle of process {self.name!r} is closed: connect again")

    # What `front.port.Sender` asks of its owner.

    def rebind(self, sender: port.Sender) -> port.Sender:
        """Another thread's sender for the same queue."""
        self.check_open()
        return self.sender(sender.queue)

    def check_type(self, kind: object) -> None:
        """TypeError for what cannot be an event type."""
        if not isinstance(kind, (str, EventType)):
            raise TypeError(f"event type {kind!r} must be a str or an EventType, not {type(kind).__name__}")

    def resolve(self, kind: object) -> int:
        """The number of a type that is not known yet: registered meanwhile, or by us now."""
        self.check_open()
        self.refresh()
        if kind not in self.types and self.may_register and isinstance(kind, str):
            tables.register_type(self.segment, self.thread().seg, kind)
            self.refresh()
        if kind not in self.types:
            known = ", ".join(sorted(name for name in self.types if isinstance(name, str)))
            raise NoSuchType(f"process {self.name!r} knows no event type {kind!r} (it knows: {known or 'none'})")
        return self.types[kind]

    def check_may_drain(self) -> None:
        """RuntimeError where `drain` would wait for its own caller: in a worker's handlers."""

    def may_block(self) -> bool:
        """Whether a send may wait for room here; a worker says no in vcore context."""
        return getattr(self._local, "may_block", True)

    @contextlib.contextmanager
    def not_blocking(self) -> Iterator[None]:
        """Sends of this thread do not wait for room meanwhile."""
        self._local.may_block = False
        try:
            yield
        finally:
            self._local.may_block = True

    def check_vcore(self, vcore: object) -> int:
        """A vcore id as an int. VCoreIdError if the process cannot have it."""
        most = self.segment.u64(self.segment.seg.procinfo + const.PI_NUM_VCORES)
        if isinstance(vcore, bool) or not isinstance(vcore, int):
            raise TypeError(f"vcore {vcore!r} must be an int, not {type(vcore).__name__}")
        if not 0 <= vcore < most:
            raise VCoreIdError(f"vcore {vcore} of {self.name!r} (it has {most}: 0 to {most - 1})")
        return vcore

    def fail(self, status: int, queue: int) -> NoReturn:
        """The exception for a protocol status."""
        self.check_open()
        where = (
            f"queue {self._queue_names.get(queue + 1)!r} of {self.name!r}"
            if queue != const.NO_VCORE
            else repr(self.name)
        )
        limited = self._limited(queue) if status == const.FULL else ""
        errors: dict[int, UpcallError] = {
            const.FULL: MailboxFull(f"{where} is full{limited}, or give the process more memory"),
            const.BUSY: MailboxBusy(f"{where} is busy: too many senders at once, nothing was sent; try again"),
            const.GONE: ProcessGone(f"process {self.name!r} is ending and takes no more events"),
            const.BAD_QUEUE: NoSuchQueue(f"{where} is not there"),
            const.BAD_VCORE: VCoreIdError(f"{where}: its vcore is outside 0..{self.segment.geometry.max_vcores - 1}"),
            const.BAD_MAILBOX: SegmentError(f"{where}: its mailbox is outside the segment; the segment is damaged"),
            const.BAD_TYPE: NoSuchType(f"{where}: event type outside 0..{self.segment.geometry.max_types - 1}"),
            const.CORRUPT: SegmentError(f"{where}: its mailbox is damaged"),
        }
        raise errors.get(status, SegmentError(f"{where}: status {status}"))

    def _limited(self, queue: int) -> str:
        """What may be done about a full queue, by its limit."""
        segment, seg = self.segment, self.segment.seg
        box = segment.u32(evq_at(seg, queue) + const.EVQ_MBOX) if queue < seg.max_queues else 0
        limit = segment.u64(mbox_at(seg, box - 1) + const.MB_LIMIT) if 0 < box <= seg.nr_mboxes else 0
        return f" (limit={limit}): let it drain, raise the limit" if limit else ": let it drain"

    def fail_forked(self) -> NoReturn:
        """A handle of a forked parent."""
        raise ForkedHandle(
            f"this handle of {self.name!r} belongs to process {self.pid}, this is its forked child {os.getpid()}: "
            f"upcall.connect({self.name!r}) here"
        )

    def fail_length(self, length: int, longest: int) -> NoReturn:
        """A payload that never fits."""
        raise ValueError(
            f"payload of {length} bytes: {self.name!r} takes at most {longest}, which is half of its memory or 4 GiB; "
            "define it with more, Proc(memory=...), or send it in parts"
        )

    def fail_nomsg(self) -> NoReturn:
        """A bit carries nothing."""
        raise FlagError(
            f"a {EventFlag.NOMSG!r} queue sends a bit: it carries no payload and no arguments; drop the flag or them"
        )

    def fail_spam(self, length: int) -> NoReturn:
        """A spammed message may arrive several times, so its payload must lie in it."""
        raise FlagError(
            f"a payload of {length} bytes in a {EventFlag.SPAM_PUBLIC!r} queue (at most {const.INLINE_MAX}): "
            "a spammed message may arrive more than once; use a queue with a mailbox"
        )

    def note_sent(self, error: BaseException, sent: int) -> None:
        """How many of `send_many` went before the error."""
        with contextlib.suppress(AttributeError):
            error.sent = sent  # type: ignore[attr-defined]

    # What `front.event.Event` asks for names.

    def type_name(self, number: int) -> str:
        """A type's name; made up for a number that nobody has registered."""
        if number not in self._type_names:
            self.refresh()
        return self._type_names.get(number, f"#{number}")

    def queue_name(self, number: int) -> str | None:
        """The name of queue `number - 1`; None for 0, a vcore's mail."""
        if number not in self._queue_names:
            self.refresh()
        return self._queue_names.get(number, f"#{number - 1}")
