"""What is shown of a segment: the names of its numbers, and the shapes of what was read."""

from __future__ import annotations

import dataclasses
import signal
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..host.records import Source
from ..kern import const

RUNTIME_TYPES = {const.EV_EVENT, const.EV_CHECK_MSGS, const.EV_VCORE_PREEMPT}
"""Messages that vcores send each other: no event of the program waits in them."""

RUNTIME_BITS = {const.EV_NONE, const.EV_EVENT, const.EV_CHECK_MSGS}
"""The same, as bits."""


def _words(prefix: str, words: str) -> dict[int, str]:
    return {getattr(const, prefix + word): word for word in words.split()}


P_STATES = _words("P_", "NEW CREATED RUNNABLE_S RUNNING_S WAITING RUNNABLE_M RUNNING_M DYING")
VC_STATES = _words("VC_", "NOHOST OFFLINE STARTING STARTED ONLINE PREEMPTED BULK AWAY")
VC_FLAGS = _words("VC_", "K_LOCK PREEMPTED_FLAG CAN_RCV_MSG UTHREAD_STEALING SCP_NOVCCTX LONG_HANDLER IN_POLL FULL")
SLOT_STATES = _words("", "DONE CLAIMED READY TAKEN")
PAGE_STATES = _words("PAGE_", "FREE CLAIMED LINKED")
SPAN_STATES = _words("SPAN_", "FREE CLAIMED SMALL LARGE BODY")
ALERT_STATES = _words("ALERT_", "NONE DOING DONE POLLED")
ON_FULL = {k: v.lower() for k, v in _words("ON_FULL_", "BLOCK RAISE BIT").items()}
ON_DEATH = {k: v.lower().replace("_", "-") for k, v in _words("ON_DEATH_", "REDELIVER DEAD_LETTER REPORT").items()}
ROLES = {k: v.lower() for k, v in _words("ROLE_", "SENDER VCORE SUPERVISOR READER WATCHER").items()}
STOPS = {0: None, const.STOP_DRAIN: "drain", const.STOP_NOW: "now"}
SLOT_COUNTERS = ("sent", "indirs", "wakes", "syscalls", "waits")
VCORE_COUNTERS = (
    "handled", "batches", "errors", "unhandled", "parks", "wakeups", "notifs", "syscalls", "redelivered", "dropped",
    "dead_letters", "reported", "restarts", "taken_over", "fails",
)  # fmt: skip


def called(table: dict[int, Any], number: int) -> Any:
    """The name of a number; a number that no protocol step writes is shown as what it is."""
    return table.get(number, f"?{number}")


def names_of_bits(table: dict[int, str], value: int) -> str:
    """The names of set bits, joined by `|`."""
    known = [name for bit, name in table.items() if value & bit]
    rest = value & ~sum(table)
    return "|".join([*known, f"?{rest:#x}"] if rest else known)


def what_of(source: Source) -> str:
    """What a source waits for, for people."""
    if source.kind == const.KIND_ALARM:
        once = "at a time of the clock" if source.flags & const.ALARM_WALL else "once"
        return f"every {source.every / 1e9:g} s" if source.every else once
    if source.kind == const.KIND_TAP:
        words = {const.TAP_READ: "READ", const.TAP_WRITE: "WRITE", const.TAP_ONCE: "once"}
        return names_of_bits(words, source.flags)
    if source.kind == const.KIND_WATCH:
        return f"the end of pid {source.pid}"
    if source.kind == const.KIND_CALL:
        return "".join(c if c.isprintable() else "?" for c in source.name)
    names = {int(number): number.name for number in signal.Signals}
    return names.get(source.value, f"signal {source.value}")


@dataclass(frozen=True)
class VCoreInfo:
    """One vcore. `pid` is its host's, None while it has none; `state` is its word in the vcoremap (ONLINE, OFFLINE: its
    host sleeps, NOHOST, ...), or FAILING: its worker dies at its start again and again (`fails` times in a row); `alive`
    whether its host lives; `pending` the events that wait in its own two mailboxes, `private` those of them that only it
    may handle. The counters are its hosts', since the segment was made; `syscalls` are those spent on parking."""

    id: int
    pid: int | None
    state: str
    alive: bool
    pending: int
    private: int
    notif_pending: bool
    flags: str
    handled: int
    batches: int
    errors: int
    unhandled: int
    parks: int
    wakeups: int
    notifs: int
    syscalls: int
    redelivered: int
    dropped: int
    dead_letters: int
    reported: int
    restarts: int
    taken_over: int
    fails: int


@dataclass(frozen=True)
class QueueInfo:
    """One event queue. `depth`: events in its mailbox that are not done, those in a handler's hands included (for a
    queue without a mailbox, its events in the vcores' mailboxes); `dead`: its dead letters; `mailbox`: the number of its
    mailbox, None if its events go to vcores; `alert`: who has been told; `max_redeliveries` counts if `on_death` is
    redeliver."""

    name: str
    depth: int
    dead: int
    flags: str
    alert: str
    mailbox: int | None
    limit: int | None
    on_full: str
    on_death: str
    max_redeliveries: int


@dataclass(frozen=True)
class SlotInfo:
    """One attach slot in use: a thread that sends, hosts a vcore, or supervises. Counters since it attached."""

    slot: int
    pid: int
    tid: int
    role: str
    alive: bool
    since_ns: int
    sent: int
    indirs: int
    wakes: int
    syscalls: int
    waits: int


@dataclass(frozen=True)
class SourceInfo:
    """One source. `kind`: alarm, tap, watch, call or signal; `queue` None: the one registered for `type`; `what` says for
    people what it waits for; `pid`: of a watch the watched process, else who made it; `due_in`: of an alarm, seconds from
    now, `every` its period; `events` sent so far (of an alarm, periods that are over); `value` the program's number, of a
    signal its number."""

    id: int
    kind: str
    type: str
    queue: str | None
    what: str
    pid: int
    events: int
    value: int
    due_in: float | None = None
    every: float | None = None


@dataclass(frozen=True)
class ProcessInfo:
    """One process, as its segment tells. `waiting`: events sent and not done, bits included; `dead`: dead letters, those
    of mail to vcores included; `attended`: whether a living supervisor holds it, and `watcher` the worker that watches the
    others if none does; `error`: why the segment cannot be read (then the rest is empty), or what in it is damaged."""

    name: str
    state: str
    pid: int | None
    attended: bool
    waiting: int
    dead: int
    memory_bytes: int
    vcores: tuple[VCoreInfo, ...]
    queues: tuple[QueueInfo, ...]
    slots: tuple[SlotInfo, ...]
    error: str | None = None
    watcher: int | None = None
    sources: tuple[SourceInfo, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists."""
        return dataclasses.asdict(self)

    @classmethod
    def unreadable(cls, name: str, error: str) -> ProcessInfo:
        """A process whose segment cannot be read."""
        return cls(name, "DAMAGED", None, False, 0, 0, 0, (), (), (), error)

    def total(self, counter: str) -> int:
        """The sum of a counter over vcores and attach slots."""
        return sum(getattr(one, counter, 0) for one in (*self.vcores, *self.slots))


@dataclass(frozen=True)
class Mailbox:
    """What lies in a mailbox: slots by state, and how many of them are messages between vcores; events by their queue's
    number + 1; the program's types whose bit is set; the pages it leads to; `odd`: what cannot be."""

    number: int
    slots: Counter[str]
    runtime: int
    by_queue: Counter[int]
    bits: tuple[int, ...]
    pages: tuple[int, ...]
    odd: str | None

    @property
    def waiting(self) -> int:
        """Events that are not done, and bits. A claim counts: it is an event unless its sender has died."""
        return sum(self.slots.values()) - self.runtime + len(self.bits)
