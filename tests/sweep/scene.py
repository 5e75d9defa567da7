"""What a scene is: a first state, an operation, and what the others do afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sweep.ledger import Ledger, arguments, content
from sweep.victim import Fate, Victim
from sweep.world import QUEUE, TYPE, World
from upcall import EventFlag
from upcall.errors import MailboxFull
from upcall.flags import WORK_QUEUE
from upcall.kern import const

Strike = Callable[[], Fate]


class Scene:
    """One operation in one state. Subclasses are kinds of victims; instances, what they do."""

    vcores = 2
    pages = 12
    may_repeat = False
    """Whether an event may be handled more than once without a death (a spammed one)."""
    lines: tuple[str, ...] = ()
    """The host layer's files whose lines are steps too, by the end of their paths."""
    flags: EventFlag = WORK_QUEUE
    queue: Any = None
    """What `Proc.queue` is told beside the flags."""
    batch_max = 0
    attended = True
    """Whether the server is the supervisor of the segment."""
    ledger: Ledger
    program: Any

    def __init__(self, name: str, act: Callable[[Victim], None], **fields: Any) -> None:
        self.name, self.act = name, act
        for field, value in fields.items():
            assert hasattr(type(self), field), field
            setattr(self, field, value)

    def define(self, program: Any) -> None:
        """The process: one queue, one event type."""
        program.queue(QUEUE, flags=self.flags, **(self.queue or {}))
        program.on(TYPE)(print)

    def register(self, host: Any, number: int) -> None:
        """The handlers of a vcore."""
        host.handle(number, self.batch_max)
        if self.flags & EventFlag.THREAD:
            host.vcore.threads.add(0)

    def send(self, sender: Any, mailer: Any, ledger: Ledger, number: int, size: int) -> None:
        """How events of this scene are sent."""
        if self.flags & EventFlag.NOMSG:
            before = ledger.bit_begun()
            sender.send(TYPE)
            ledger.bit_returned(before)
            return
        ledger.begin(number)
        try:
            sender.send(TYPE, content(number, size), **arguments(number, size))
        except MailboxFull:
            ledger.take_back(number)
            raise
        ledger.returned(number)

    def post(self, mailer: Any, ledger: Ledger, number: int, size: int, private: bool) -> None:
        """Mail to the first vcore, without a queue."""
        ledger.begin(number)
        status = mailer.post_vcore(TYPE, content(number, size), 0, private, *arguments(number, size).values())
        assert status == const.OK
        ledger.returned(number)

    def play(self, w: World, strike: Strike) -> Fate:
        """One round; returns what has become of the victim."""
        raise NotImplementedError

    def meanwhile(self, w: World, pid: int) -> int | None:
        """What the others do while the victim is at it; see `victim.strike`."""
        return None
