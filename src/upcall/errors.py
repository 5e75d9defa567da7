"""What can go wrong, each with its own name. Every message names the thing, the value and the way out."""

from __future__ import annotations

__all__ = [
    "FlagError",
    "ForkedHandle",
    "MailboxBusy",
    "MailboxFull",
    "NameInUse",
    "NoSuchProcess",
    "NoSuchQueue",
    "NoSuchType",
    "ProcessGone",
    "SegmentError",
    "UpcallError",
    "VCoreIdError",
    "WorkerDied",
]


class UpcallError(Exception):
    """The base of all errors of this package."""


class NoSuchProcess(UpcallError):
    """No process of this name has a segment here."""


class NoSuchQueue(UpcallError):
    """The process has no queue of this name; the message lists those it has."""


class NoSuchType(UpcallError):
    """The process knows no event type of this name; the message lists those it knows."""


class NameInUse(UpcallError):
    """A process of this name runs already."""


class VCoreIdError(UpcallError):
    """A vcore id that the process does not have."""


class FlagError(UpcallError):
    """Delivery flags that contradict each other, or an event that a queue's flags cannot carry."""


class SegmentError(UpcallError):
    """A file that is not a segment of this version, is damaged, or cannot be used as one."""


class MailboxFull(UpcallError):
    """No room, and the queue does not block. `sent` says how many events of a `send_many` went before."""

    sent: int = 0


class MailboxBusy(UpcallError):
    """The bound on the sender's own steps is reached (G11); nothing was sent. Try again. `sent` as in MailboxFull."""

    sent: int = 0


class ProcessGone(UpcallError):
    """The process is dying: it takes no more events. `sent` as in MailboxFull."""

    sent: int = 0


class ForkedHandle(UpcallError):
    """A handle of the parent, used in a forked child: connect anew there."""


class WorkerDied(UpcallError):
    """A worker died with this call in its hands.

    `call` what it was doing, as text; `pid` the worker's process id, `signal` the signal that ended it (None: it exited,
    with `exitcode`). What nobody knows is None.
    """

    def __init__(self, message: str, call: str, pid: int | None = None, status: int | None = None) -> None:
        super().__init__(message, call, pid, status)
        self.call = call
        self.pid = pid
        self.signal = None if status is None or not status & 0x7F else status & 0x7F
        self.exitcode = None if status is None or status & 0x7F else status >> 8

    def __str__(self) -> str:
        return str(self.args[0])
