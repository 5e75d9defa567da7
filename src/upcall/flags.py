"""The seed's delivery flags and event types, as Python enumerations over the numbers of `kern/const.pxd`."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from .errors import FlagError
from .kern import const


class EventFlag(IntFlag):
    """How an event queue delivers. Combine with `|`."""

    IPI = const.EVENT_IPI
    """Interrupt the vcore: wake it if it is parked, interrupt its user code if it runs some."""
    NOMSG = const.EVENT_NOMSG
    """Only the type's bit, no message: repeats coalesce."""
    INDIR = const.EVENT_INDIR
    """The message goes to the queue's own mailbox; a vcore is told to look at the queue."""
    FALLBACK = const.EVENT_FALLBACK
    """If the wanted vcore cannot be told, some other is."""
    SPAM_PUBLIC = const.EVENT_SPAM_PUBLIC
    """No mailbox of its own: the message itself goes to public mailboxes, and may arrive more than once."""
    VCORE_PRIVATE = const.EVENT_VCORE_PRIVATE
    """The vcore's private mailbox: that vcore handles it, or nobody (G7)."""
    VCORE_MUST_RUN = const.EVENT_VCORE_MUST_RUN
    """The vcore that gets it must be one that runs (G8)."""
    NOTHROTTLE = const.EVENT_NOTHROTTLE
    """Tell a vcore every time, even if one has been told and has not looked yet."""
    ROUNDROBIN = const.EVENT_ROUNDROBIN
    """Each event prefers the next vcore; overrides VCORE_APPRO."""
    VCORE_APPRO = const.EVENT_VCORE_APPRO
    """Prefer the vcore that the sender proposes."""
    JUSTHANDLEIT = const.EVENT_JUSTHANDLEIT
    """Run the queue's handler in vcore context (the default)."""
    THREAD = const.EVENT_THREAD
    """Run the queue's handlers in uthread context, where interrupts come in on top of them."""


class EventType(IntEnum):
    """Event types that the kernel sends; the program's own types are strings."""

    NONE = const.EV_NONE
    PREEMPT_PENDING = const.EV_PREEMPT_PENDING
    GANG_PREEMPT_PENDING = const.EV_GANG_PREEMPT_PENDING
    VCORE_PREEMPT = const.EV_VCORE_PREEMPT
    GANG_RETURN = const.EV_GANG_RETURN
    USER_IPI = const.EV_USER_IPI
    PAGE_FAULT = const.EV_PAGE_FAULT
    ALARM = const.EV_ALARM
    EVENT = const.EV_EVENT
    FREE_APPLE_PIE = const.EV_FREE_APPLE_PIE
    SYSCALL = const.EV_SYSCALL
    CHECK_MSGS = const.EV_CHECK_MSGS
    POSIX_SIGNAL = const.EV_POSIX_SIGNAL


class Ready(IntFlag):
    """What a descriptor is ready for: wanted of a tap, and said by its events."""

    READ = const.TAP_READ
    """Reading does not block; at the end of a file or connection too."""
    WRITE = const.TAP_WRITE
    """Writing does not block."""
    HANGUP = const.TAP_HANGUP
    """The other end is closed. Never wanted, always said."""
    ERROR = const.TAP_ERROR
    """It has failed. Never wanted, always said."""


WORK_QUEUE = EventFlag.IPI | EventFlag.INDIR | EventFlag.FALLBACK
"""What `Proc.queue` uses by default: any vcore may take an event, and a sleeping one is woken."""


def check_flags(flags: EventFlag, *, own_mailbox: bool) -> None:
    """FlagError if two flags contradict each other; `own_mailbox`: the queue was given a mailbox by name."""
    f = EventFlag
    rules = [
        (f.SPAM_PUBLIC in flags and f.VCORE_PRIVATE in flags, "SPAM_PUBLIC with VCORE_PRIVATE",
         "a spammed message goes to public mailboxes: drop one of the two"),
        (f.SPAM_PUBLIC in flags and own_mailbox, "SPAM_PUBLIC with a mailbox",
         "a spammed message goes to the vcores' own mailboxes: drop mailbox= or the flag"),
        (f.SPAM_PUBLIC in flags and f.INDIR in flags, "SPAM_PUBLIC with INDIR",
         "there is no mailbox to point to: drop one of the two"),
        (f.INDIR in flags and f.VCORE_PRIVATE in flags, "INDIR with VCORE_PRIVATE",
         "private mail is for one vcore and needs no indirection: drop INDIR and FALLBACK"),
        (f.FALLBACK in flags and f.INDIR not in flags, "FALLBACK without INDIR", "add INDIR"),
        (f.NOTHROTTLE in flags and f.INDIR not in flags, "NOTHROTTLE without INDIR", "add INDIR, or drop NOTHROTTLE"),
        (f.INDIR in flags and f.FALLBACK not in flags, "INDIR without FALLBACK",
         "the indirection could be lost with its vcore: add FALLBACK"),
        (f.JUSTHANDLEIT in flags and f.THREAD in flags, "JUSTHANDLEIT with THREAD",
         "a handler runs in vcore context or in uthread context: drop one of the two"),
    ]  # fmt: skip
    for wrong, what, way_out in rules:
        if wrong:
            raise FlagError(f"flags {flags!r} contradict each other: {what}; {way_out}")
    unknown = int(flags) & ~int(sum(EventFlag))
    if unknown:
        raise FlagError(
            f"unknown flag bits 0x{unknown:x} in {int(flags):#x}; known: {', '.join(f.name or '' for f in EventFlag)}"
        )
