"""Scaffolding for tests of the protocol: a small segment in plain memory, several actors on it, and vcores that write
down what they were given. Works in both lives; what only one of them can show says so."""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from upcall import _life
from upcall.check import interp
from upcall.kern import const

GEOMETRY = (4, 4, 64, 8, 4, 16, 8)
"""max_vcores, max_queues, max_types, max_slots, page_slots, nr_pages, nr_spans."""

USUAL = const.EVENT_IPI | const.EVENT_INDIR | const.EVENT_FALLBACK
TYPE = const.TYPE_PROGRAM
_FORMAT = {2: "<H", 4: "<I", 8: "<Q"}


class Bench:
    """One segment and those who work on it. `life` has the modules `machine`, `kern` and `parlib`."""

    def __init__(self, life: Any, *, vcores: int = 4, geometry: tuple[int, ...] = GEOMETRY) -> None:
        self.life = life
        self.layout, self.pages, self.arena = life.kern.layout, life.kern.pages, life.kern.arena
        self.ucq, self.proc, self.event = life.kern.ucq, life.kern.proc, life.kern.event
        self.source = life.kern.source
        self.mbox, self.vcore_module, self.recover_module = life.parlib.mbox, life.parlib.vcore, life.parlib.recover
        self.spin_module, self.watch_module, self.dead = life.parlib.spin, life.parlib.watch, life.parlib.dead
        self.geometry = geometry
        self.compiled = getattr(life, "compiled", False)
        self.at: Any = self.layout.Seg(*geometry)
        self.buffer: Any
        self.bound: list[Any] = []
        if self.compiled:
            self.buffer = mmap.mmap(-1, self.at.size)
        else:
            self.memory = life.machine.door.Memory(self.at.size, self.at.tables_end)
            self.world = life.machine.door.World(self.memory)
            self.buffer = self.memory.bytes
        self.actors = 0
        self.at = self._bound()
        self.set(self.at.procinfo + const.PI_NUM_VCORES, vcores)
        self.set(self.at.procinfo + const.PI_STATE, const.P_CREATED)
        self.recorder = _recorder(life)

    def _bound(self) -> Any:
        seg = self.layout.Seg(*self.geometry)
        if self.compiled:
            from upcall.front import port

            self.bound.append(port.bind(seg, self.buffer))
        else:
            seg.mem = self.memory
            seg.world = self.world
        return seg

    # ---- words -------------------------------------------------------------------------------------------------------

    def get(self, offset: int, width: int = 8) -> int:
        return int(struct.unpack_from(_FORMAT[width], self.buffer, offset)[0])

    def set(self, offset: int, value: int, width: int = 8) -> None:
        struct.pack_into(_FORMAT[width], self.buffer, offset, value)

    def slot_word(self, where: int) -> int:
        return self.get(self.ucq.slot_at(self.at, where))

    def page_word(self, page: int) -> int:
        return self.get(self.layout.page_at(self.at, page) + const.PG_WORD)

    def vcpd(self, vcoreid: int, field: int) -> int:
        return self.get(self.layout.vcpd_at(self.at, vcoreid) + field, 4)

    def set_vcpd(self, vcoreid: int, field: int, value: int) -> None:
        self.set(self.layout.vcpd_at(self.at, vcoreid) + field, value, 4)

    def pending(self, vcoreid: int) -> bool:
        return self.vcpd(vcoreid, const.VCPD_NOTIF_PENDING) != 0

    def map(self, vcoreid: int) -> int:
        """The state of a vcore, as the vcoremap has it."""
        return self.get(self.layout.map_at(self.at, vcoreid)) & 15

    def set_map(self, vcoreid: int, state: int, name: int = 0) -> None:
        at = self.layout.map_at(self.at, vcoreid)
        self.set(at, self.proc.vc_next(self.get(at), state, name))

    def state(self) -> int:
        return self.get(self.at.procinfo + const.PI_STATE) & 0xFF

    def alert(self, queue: int = 0) -> int:
        return self.get(self.layout.evq_at(self.at, queue) + const.EVQ_ALERT)

    def consume(self, seg: Any, mbox: int) -> list[int]:
        """Takes all of a mailbox and moves its head; arg1 of each."""
        cur, found = self.mbox.Cursor(mbox), []
        while at := self.mbox.take(seg, cur):
            found.append(self.get(at + const.SL_ARG1, 2))
            self.mbox.put_done(seg, cur, cur.taken)
        self.ucq.advance_head(seg, mbox)
        return found

    def counter(self, seg: Any, counter: int) -> int:
        return self.get(self.layout.slot_record_at(self.at, seg.my_slot) + counter)

    # ---- actors ------------------------------------------------------------------------------------------------------

    def actor(self) -> Any:
        """One more attached actor: its own view of the segment, under a name of its own."""
        seg = self._bound()
        slot = self.actors % self.at.max_slots
        generation = self.actors // self.at.max_slots + 1
        self.actors += 1
        self.set(self.layout.slot_record_at(self.at, slot) + const.AS_WORD, generation | (1 << 32))
        seg.set_name(slot, generation)
        return seg

    def kill(self, seg: Any) -> None:
        """The actor is dead from now on: its attach slot has another generation."""
        at = self.layout.slot_record_at(self.at, seg.my_slot) + const.AS_WORD
        if self.get(at) & const.SLOT_GEN_MASK == seg.me >> 12:
            self.set(at, (seg.me >> 12) + 0x80000)

    def vcore(self, vcoreid: int) -> Any:
        """A vcore with a host of its own, that has entered vcore context."""
        seg = self.actor()
        assert self.recover_module.host_vcore(seg, vcoreid)
        vc = self.recorder(seg, vcoreid)
        vc.bench = self
        self.set_vcpd(vcoreid, const.VCPD_NOTIF_DISABLED, 1)
        assert self.vcore_module.vcore_entry(vc)
        return vc

    def asleep(self, vcoreid: int) -> Any:
        """A vcore that has nothing to do and has given its core back."""
        vc = self.vcore(vcoreid)
        self.idle(vc)
        return vc

    # ---- doing -------------------------------------------------------------------------------------------------------

    def queue(self, queue: int = 0, flags: int = USUAL, *, vcore: int = 0, own: bool = True, limit: int = 0) -> int:
        """Makes an event queue. `own`: with a mailbox of its own."""
        at = self.layout.evq_at(self.at, queue)
        mbox = self.event.queue_mbox(self.at, queue)
        self.set(at + const.EVQ_FLAGS, flags, 4)
        self.set(at + const.EVQ_VCORE, vcore, 4)
        self.set(at + const.EVQ_MBOX, mbox + 1 if own else 0, 4)
        self.set(at + const.EVQ_MAX_REDELIVERIES, const.REDELIVERIES_USUAL, 4)
        self.set(at + const.EVQ_USED, 1, 4)
        self.set(self.layout.mbox_at(self.at, mbox) + const.MB_LIMIT, limit)
        number = self.at.procinfo + const.PI_NR_QUEUES
        self.set(number, max(self.get(number, 4), queue + 1), 4)
        return queue

    def message(self, arg1: int = 0, *, ev_type: int = TYPE, **fields: int) -> Any:
        """A message whose other arguments repeat `arg1`, so that a mixture of two would show."""
        msg = self.layout.Msg()
        msg.ev_type = ev_type
        msg.arg1 = arg1
        msg.arg2 = arg1
        msg.arg3 = arg1
        msg.arg4 = arg1
        for name, value in fields.items():
            setattr(msg, name, value)
        return msg

    def send(self, seg: Any, arg1: int = 0, *, queue: int = 0, vcore: int = const.NO_VCORE, **fields: int) -> int:
        """Sends one message to an event queue; the status."""
        return int(self.event.send_event(seg, queue, self.message(arg1, **fields), vcore))

    def run(self, vc: Any) -> None:
        """Vcore context, until a round finds nothing."""
        for _ in range(1000):
            if not self.vcore_module.work(vc):
                return
        raise AssertionError("the vcore finds work for ever")

    def idle(self, vc: Any) -> None:
        """Works until the vcore gives its core back. A handler of the test's vcores never makes work for itself."""
        for _ in range(100):
            self.run(vc)
            if self.vcore_module.vcore_yield(vc):
                return
        raise AssertionError("the vcore never yields")

    def wake(self, vc: Any) -> bool:
        """What a parked host does: nothing, unless its word says that it has a core."""
        if self.map(vc.vcoreid) not in (const.VC_STARTING, const.VC_STARTED):
            return False
        return bool(self.vcore_module.vcore_entry(vc))

    def settle(self, *vcores: Any) -> None:
        """Lets the hosts of these vcores do what they would: wake if they are given a core, work, sleep."""
        for _ in range(20):
            busy = [vc for vc in vcores if self.map(vc.vcoreid) == const.VC_ONLINE or self.wake(vc)]
            for vc in busy:
                self.idle(vc)
            if not busy:
                return
        raise AssertionError("the vcores never come to rest")

    def bury(self, seg: Any, *, by: Any, vcoreid: int | None = None) -> None:
        """What a watcher does when an actor has died: its vcore has no host, what it held is settled and announced."""
        self.kill(seg)
        if vcoreid is not None:
            self.proc.unhost_vcore(by, vcoreid)
        self.recover_module.recover_vcore(by, vcoreid or 0, seg.me)
        self.recover_module.announce(by)

    # ---- looking -----------------------------------------------------------------------------------------------------

    def waiting(self, mbox: int) -> list[int]:
        """arg1 of the READY messages of a mailbox, in order, untouched."""
        found = []
        for where in self.walk(mbox):
            slot = self.ucq.slot_at(self.at, where)
            if self.get(slot) & 15 == const.READY:
                found.append(self.get(slot + const.SL_ARG1, 2))
        return found

    def types_waiting(self, mbox: int) -> list[int]:
        return [
            self.get(self.ucq.slot_at(self.at, where) + const.SL_TYPE, 2)
            for where in self.walk(mbox)
            if self.slot_word(where) & 15 == const.READY
        ]

    def walk(self, mbox: int) -> Iterator[int]:
        """The places of a mailbox's slots that are not EMPTY, from its head on."""
        here = self.get(self.layout.mbox_at(self.at, mbox) + const.MB_HEAD)
        while here & const.PAGE_MASK:
            page, gen = here & const.PAGE_MASK, here >> 32
            for i in range((here >> 20) & 0xFFF, self.at.page_slots):
                where = self.layout.place(page, i, gen)
                if self.slot_word(where) == self.ucq.empty_word(gen):
                    return
                yield where
            here = self.layout.onward(self.get(self.layout.page_at(self.at, page) + const.PG_NEXT))

    def chain(self, mbox: int) -> list[int]:
        """The pages of a mailbox."""
        found = []
        here = self.get(self.layout.mbox_at(self.at, mbox) + const.MB_HEAD)
        while here & const.PAGE_MASK:
            found.append(here & const.PAGE_MASK)
            here = self.get(self.layout.page_at(self.at, found[-1]) + const.PG_NEXT)
        return found

    def free_pages(self) -> frozenset[int]:
        """Pages that are FREE and have their bit."""
        return frozenset(
            page
            for page in range(1, self.at.nr_pages + 1)
            if self.page_word(page) & 15 == const.PAGE_FREE
            and self.get(self.at.bitmap + (page - 1) // 64 * 8) >> (page - 1) % 64 & 1
        )

    def pages_lost(self) -> frozenset[int]:
        """Pages that are neither free nor in a mailbox; and it checks that no page is in two places."""
        seen: list[int] = []
        for mbox in range(self.at.nr_mboxes):
            seen += self.chain(mbox)
        assert len(seen) == len(set(seen)), f"a page is linked twice: {seen}"
        free = self.free_pages()
        assert not free & set(seen), f"a page is free and linked: {free & set(seen)}"
        real = self.get(self.at.procinfo + const.PI_PAGES_REAL)
        return frozenset(range(1, real + 1)) - free - set(seen)

    def blocks_in_use(self) -> int:
        """Blocks and spans that are not free, large ones counted by their spans."""
        used = 0
        for span in range(self.at.nr_spans):
            at = self.layout.span_at(self.at, span)
            word = self.get(at)
            if word & 15 == const.SPAN_SMALL:
                used += sum(
                    self.get(self.arena.block_record(self.at, span, i)) & 15 != const.BLOCK_FREE
                    for i in range(self.arena.blocks_in(self.arena.span_class(word)))
                )
            elif word & 15 != const.SPAN_FREE:
                used += 1
        return used


_recorders: dict[int, type] = {}


def _recorder(life: Any) -> type:
    """A vcore that writes down arg1 of what it is given; one class per life."""
    base = life.parlib.vcore.VCore
    if id(base) not in _recorders:

        class Recorder(base):  # type: ignore[misc]
            """`got`: (type, arg1) of messages; `bits`: types; `during`: called inside each handler."""

            def __init__(self, seg: Any, vcoreid: int) -> None:
                super().__init__(seg, vcoreid)
                self.got: list[tuple[int, int]] = []
                self.bits: list[int] = []
                self.slept = 0
                self.torn: list[tuple[int, ...]] = []
                self.during: Callable[[], None] = lambda: None
                self.bench: Any = None

            def deliver(self, cur: Any, at: int) -> int:
                seg, bench = self.s, self.bench
                arg1, arg2 = bench.get(at + const.SL_ARG1, 2), bench.get(at + const.SL_ARG2, 4)
                arg3, arg4 = bench.get(at + const.SL_ARG3), bench.get(at + const.SL_ARG4)
                if not arg1 == arg2 == arg3 == arg4:
                    self.torn.append((arg1, arg2, arg3, arg4))
                where = cur.taken
                self.got.append((bench.get(at + const.SL_TYPE, 2), arg1))
                self.during()
                bench.mbox.put_done(seg, cur, where)
                return 0

            def deliver_bit(self, cur: Any, ev_type: int) -> int:
                self.bits.append(ev_type)
                self.during()
                return 0

            def sleep(self) -> int:
                self.slept += 1
                return 0

            @property
            def args(self) -> list[int]:
                return [arg1 for _, arg1 in self.got]

        _recorders[id(base)] = Recorder
    return _recorders[id(base)]


# ---- the interpreted life under a door of our own --------------------------------------------------------------------

ACCESSES = [
    "ld8", "ld16", "ld32", "ld64", "lda32", "lda64", "st8", "st16", "st32", "st64", "str32", "str64", "cas32",
    "cas64", "xchg32", "xchg64", "faa32", "faa64", "for32", "for64", "fand32", "fand64", "copy_in", "copy_out",
    "copy_words", "bytes_at", "futex_wake", "interrupt", "alive", "grow",
]  # fmt: skip


class Death(BaseException):
    """The actor was killed before an access."""


class Steps:
    """Counts accesses to shared memory and to the world, and does something before one of them."""

    def __init__(self) -> None:
        self.left = -1
        self.seen = 0
        self.action: Callable[[], None] = lambda: None

    def step(self) -> None:
        self.seen += 1
        if self.left < 0:
            return
        self.left -= 1
        if self.left < 0:
            self.action()

    def before(self, n: int, action: Callable[[], None]) -> None:
        """`action` runs once, before the access number `n` from now on (counted from 0)."""
        self.left = n
        self.action = action

    @contextmanager
    def bounded(self, most: int) -> Iterator[None]:
        """Fails if the body makes more than `most` accesses."""

        def too_many() -> None:
            raise AssertionError(f"more than {most} accesses")

        self.before(most, too_many)
        yield
        self.left = -1


class StepLife:
    """The protocol loaded interpreted, with every access a step of `steps`."""

    compiled = False

    def __init__(self, name: str) -> None:
        self.steps = Steps()
        self.name = name
        door = ModuleType(f"{name}.machine.door")
        door.__package__ = f"{name}.machine"
        sys.modules[door.__name__] = door
        path = Path(_life.ROOT) / "machine" / "door.py"
        exec(compile(path.read_text(), str(path), "exec"), door.__dict__)
        del sys.modules[door.__name__]
        for access in ACCESSES:
            setattr(door, access, self._stepped(getattr(door, access)))
        self.root = interp.load(door, name)
        self.machine, self.kern, self.parlib = self.root.machine, self.root.kern, self.root.parlib

    def _stepped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        steps = self.steps

        def access(*args: Any) -> Any:
            steps.step()
            return function(*args)

        return access

    def dies(self, n: int, action: Callable[[], Any]) -> bool:
        """Runs `action`, killed before its access number `n`. False if it came to its end before."""

        def kill() -> None:
            raise Death

        self.steps.before(n, kill)
        try:
            action()
        except Death:
            return True
        finally:
            self.steps.left = -1
        return False

    def interrupted(self, n: int, action: Callable[[], Any], other: Callable[[], Any]) -> bool:
        """Runs `action`, and all of `other` before its access number `n`. False if there is no such access."""
        done = []

        def meanwhile() -> None:
            done.append(1)
            other()

        self.steps.before(n, meanwhile)
        try:
            action()
        finally:
            self.steps.left = -1
        return bool(done)
