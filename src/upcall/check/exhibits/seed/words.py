"""What the seed's functions work on: one process's words, and the functions of its queues of messages.

Names are the seed's. A list of vcores is one word here, a vcore in each four bits with the head lowest: its head is read
with one load, as the seed reads it without the lock, and it changes with one store, which only the lock's owner makes.
"""

from __future__ import annotations

from ...plan import Scenario, Word

VC_K_LOCK, VC_PREEMPTED, VC_CAN_RCV_MSG = 1, 2, 4
RUNNING_S, WAITING, RUNNABLE_S, RUNNABLE_M, RUNNING_M, DYING = 1, 2, 3, 4, 5, 6
IPI, NOMSG, INDIR, FALLBACK, SPAM_PUBLIC, VCORE_PRIVATE, MUST_RUN, NOTHROTTLE, ROUNDROBIN, VCORE_APPRO = (
    1 << i for i in range(10)
)
SPAM_FLAGS = IPI | MUST_RUN

EV_EVENT, EV_VCORE_PREEMPT, EV_CHECK_MSGS = 1 << 8, 2 << 8, 3 << 8
"""Kinds of messages, the queue or vcore in the low byte; what is below is the program's own."""


class Mailbox:
    """A UCQ of one page that is never full, a bitmap and `check_bits`. `slots` is how many messages a scenario sends."""

    def __init__(self, s: Scenario, name: str, slots: int) -> None:
        self.check_key = ("mailbox", name)
        self.name = name
        self.prod, self.cons = s.word(f"{name}.prod"), s.word(f"{name}.cons")
        self.contents = [s.word(f"{name}.slot{i}") for i in range(slots)]
        self.ready = [s.word(f"{name}.ready{i}") for i in range(slots)]
        self.bitmap, self.check_bits = s.word(f"{name}.bitmap"), s.word(f"{name}.check_bits")


class Vcpd:
    """A vcore's words: those of procdata, and `mapped` of procinfo's vcoremap."""

    def __init__(self, s: Scenario, v: int, slots: int) -> None:
        self.check_key = ("vcpd", v)
        self.flags = s.word(f"vc{v}.flags")
        self.notif_disabled, self.notif_pending = s.word(f"vc{v}.notif_disabled"), s.word(f"vc{v}.notif_pending")
        self.public, self.private = Mailbox(s, f"vc{v}.public", slots), Mailbox(s, f"vc{v}.private", slots)
        self.mapped = s.word(f"vc{v}.mapped")


class EventQueue:
    """An event queue. Its flags and mailbox never change while a scenario runs."""

    def __init__(self, s: Scenario, name: str, flags: int, mbox: Mailbox | None, vcore: int) -> None:
        self.check_key = ("queue", name)
        self.name, self.flags, self.mbox = name, flags, mbox
        self.vcore = s.word(f"{name}.vcore", vcore)
        self.alert_pending = s.word(f"{name}.alert_pending")


class Proc:
    """A process: `online`, `bulk` and `inactive` are its lists, head first; vcores in none of them do not exist."""

    def __init__(
        self, s: Scenario, *, vcores: int = 1, slots: int = 8, online: tuple[int, ...] = (),
        bulk: tuple[int, ...] = (), inactive: tuple[int, ...] = (), state: int = RUNNING_M, mcp: bool = True,
        waits: bool = True,
    ) -> None:  # fmt: skip
        self.s = s
        self.waits = waits
        self.check_key = "proc"
        self.slots = slots
        self.state = s.word("state", state)
        self.mcp = s.word("is_mcp", int(mcp))
        self.lock = s.word("proc_lock")
        self.online, self.bulk = s.word("online_vcs", packed(online)), s.word("bulk_preempted_vcs", packed(bulk))
        self.inactive = s.word("inactive_vcs", packed(inactive))
        self.num_vcores = s.word("num_vcores", len(online))
        self.vcpd = [Vcpd(s, v, slots) for v in range(vcores)]
        self.queues: list[EventQueue] = []
        for v in online:
            self.vcpd[v].mapped.store(1)
            self.vcpd[v].flags.store(VC_CAN_RCV_MSG)
        for v in bulk:
            self.vcpd[v].flags.store(VC_CAN_RCV_MSG | VC_PREEMPTED)

    def queue(self, flags: int, *, own: bool = True, vcore: int = 0) -> int:
        """Makes an event queue; its number."""
        name = f"queue{len(self.queues)}"
        mbox = Mailbox(self.s, name, self.slots) if own else None
        self.queues.append(EventQueue(self.s, name, flags, mbox, vcore))
        return len(self.queues) - 1

    def mailboxes(self) -> list[Mailbox]:
        """All of them."""
        of_vcores = [mbox for vcpd in self.vcpd for mbox in (vcpd.public, vcpd.private)]
        return of_vcores + [queue.mbox for queue in self.queues if queue.mbox is not None]


def packed(vcores: tuple[int, ...]) -> int:
    """A list of vcores as a word."""
    return sum(v + 1 << 4 * place for place, v in enumerate(vcores))


def unpacked(word: int) -> list[int]:
    """A word's list of vcores."""
    found = []
    while word:
        found.append((word & 15) - 1)
        word >>= 4
    return found


def head(listed: Word) -> int:
    """TAILQ_FIRST: a list's head, without the lock; -1 if it is empty."""
    word = listed.load()
    return (word & 15) - 1


def remove(listed: Word, v: int) -> None:
    """Takes a vcore off a list. Only with the lock."""
    word = listed.load()
    listed.store(packed(tuple(each for each in unpacked(word) if each != v)))


def insert_head(listed: Word, v: int) -> None:
    """Puts a vcore at a list's head. Only with the lock."""
    word = listed.load()
    listed.store(word << 4 | v + 1)


def send_ucq_msg(mbox: Mailbox, msg: int) -> None:
    """Appends a message: takes a slot with one atomic operation, fills it, says that it is ready."""
    i = mbox.prod.add(1)
    assert i < len(mbox.contents), f"the scenario needs more slots in {mbox.name}"
    mbox.contents[i].store(msg)
    mbox.prod.s.wmb()  # contents before ready: pairs with `get_ucq_msg`
    mbox.ready[i].store(1)


def get_ucq_msg(mbox: Mailbox, waits: bool) -> int:
    """The next message, or -1: claims a slot with compare-and-swap, and then waits until its producer has filled it.
    Without `waits`, a slot that is not filled yet is no message yet."""
    while True:
        i = mbox.cons.load()
        if mbox.prod.load() == i:
            return -1
        if not waits and not mbox.ready[i].load():
            return -1
        if mbox.cons.cas(i, i + 1):
            break
    while not mbox.ready[i].load():
        pass
    mbox.prod.s.rmb()  # ready before contents
    return mbox.contents[i].load()
