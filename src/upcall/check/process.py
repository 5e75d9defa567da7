"""A process of upcall's own, for scenarios: a segment in the checker's memory, senders and vcores that run the real
code."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ..kern import const
from . import door, interp
from .naming import namer
from .plan import Scenario
from .program import Hub
from .rewrite import compiled

SMALL = (2, 2, 64, 8, 4, 8, 2)
"""max_vcores, max_queues, max_types, max_slots, page_slots, nr_pages, nr_spans: pages turn after four messages."""
USUAL = const.EVENT_IPI | const.EVENT_INDIR | const.EVENT_FALLBACK
TYPE = const.TYPE_PROGRAM


class Fixed:
    """Something shared that actors only pass to the door."""

    def __init__(self, key: str) -> None:
        self.check_key = key


DIED = 64
"""Interrupt number DIED + i: actor i has died (the pidfd that a supervisor sleeps on)."""
MEMORY, WORLD = Fixed("memory"), Fixed("world")


_instead: list[ModuleType] = []


def protocol(hub: Hub) -> ModuleType:
    """The protocol's own files, interpreted over the checker's door."""
    return _instead[-1] if _instead else _as_it_is(hub)


@functools.cache
def _as_it_is(hub: Hub) -> ModuleType:
    return interp.load(door.make(hub.ask), "upcall_checked", compiled)


@contextmanager
def changed(hub: Hub, transform: interp.Transform) -> Iterator[None]:
    """While it lasts, scenarios run on the protocol as `transform` compiles it."""
    life = interp.load(door.make(hub.ask), "upcall_changed", transform)
    _instead.append(life)
    try:
        yield
    finally:
        _instead.remove(life)
        interp.unload("upcall_changed")


@contextmanager
def unchanged() -> Iterator[None]:
    """While it lasts, scenarios run on the protocol as it is, inside of `changed`, too."""
    kept = _instead[:]
    _instead.clear()
    try:
        yield
    finally:
        _instead[:] = kept


class Process:
    """One process's segment, being laid out. Its methods are for laying out; what actors do they do with the protocol's
    own functions, in `kern` and `parlib`. `fresh`: nobody has touched a page or a span of the segment before."""

    def __init__(self, s: Scenario, *, vcores: int = 1, geometry: tuple[int, ...] = SMALL, fresh: bool = False) -> None:
        self.s = s
        life = s.protocol()
        self.life, self.kern, self.parlib = life, life.kern, life.parlib
        self.check_key = "process"
        self.geometry, self.fresh = geometry, fresh
        self.vcores = vcores
        self.at = self._seg()
        s.size = self.at.size
        s.namer = namer(geometry, life.kern.layout)
        self.attached = 0
        self.hosts: dict[int, Any] = {}
        self.recorder = _recorder(life)
        self.set(self.at.procinfo + const.PI_NUM_VCORES, vcores)
        self.set(self.at.procinfo + const.PI_STATE, const.P_CREATED)

    def _seg(self) -> Any:
        seg = self.kern.layout.Seg(*self.geometry)
        seg.mem, seg.world = MEMORY, WORLD
        if not self.fresh:
            # Who has been here for a while has its pages and spans backed already. To have one backed is a call to the
            # world, and so a fence: it would stand in for those that are missing.
            seg.real_pages, seg.real_spans = seg.nr_pages, seg.nr_spans
        return seg

    def get(self, offset: int, width: int = 8) -> int:
        """A word, while laying out."""
        return (self.s.memory.get(offset >> 3, 0) >> ((offset & 7) * 8)) & ((1 << 8 * width) - 1)

    def set(self, offset: int, value: int, width: int = 8) -> None:
        """Writes a word, while laying out."""
        shift, full = (offset & 7) * 8, (1 << 8 * width) - 1
        self.s.memory[offset >> 3] = self.s.memory.get(offset >> 3, 0) & ~(full << shift) | (value & full) << shift

    def attach(self) -> Any:
        """One more actor's view of the segment, under a name of its own."""
        seg = self._seg()
        slot = self.attached
        self.attached += 1
        self.set(self.kern.layout.slot_record_at(self.at, slot) + const.AS_WORD, 1 | 1 << 32)
        seg.set_name(slot, 1)
        return seg

    def gone(self) -> Any:
        """One who was attached, and is dead: another has its slot."""
        seg = self.attach()
        self.set(self.kern.layout.slot_record_at(self.at, seg.my_slot) + const.AS_WORD, 2 | 1 << 32)
        return seg

    def queue(self, flags: int = USUAL, *, queue: int = 0, vcore: int = 0, own: bool = True, limit: int = 0) -> int:
        """Makes an event queue."""
        at = self.kern.layout.evq_at(self.at, queue)
        mbox = self.kern.event.queue_mbox(self.at, queue)
        self.set(at + const.EVQ_FLAGS, flags, 4)
        self.set(at + const.EVQ_VCORE, vcore, 4)
        self.set(at + const.EVQ_MBOX, mbox + 1 if own else 0, 4)
        self.set(at + const.EVQ_USED, 1, 4)
        self.set(self.kern.layout.mbox_at(self.at, mbox) + const.MB_LIMIT, limit)
        number = self.at.procinfo + const.PI_NR_QUEUES
        self.set(number, max(self.get(number, 4), queue + 1), 4)
        return queue

    def message(self, arg: int, ev_type: int = TYPE) -> Any:
        """A message that says the same in each of its arguments."""
        msg = self.kern.layout.Msg()
        msg.ev_type = ev_type
        msg.arg1 = msg.arg2 = msg.arg3 = msg.arg4 = arg
        return msg

    # ---- actors --------------------------------------------------------------------------------------------------

    def sender(self, name: str, *args: int, queue: int = 0, ev_type: int = TYPE, mortal: bool = True) -> None:
        """An actor that sends these messages to a queue, and notes each send that has returned well."""
        seg, s = self.attach(), self.s
        send_event = self.kern.event.send_event

        def sends() -> None:
            i = 0
            while i < len(args):
                status = send_event(seg, queue, self.message(args[i], ev_type), const.NO_VCORE)
                s.note("sent", args[i], status)
                i += 1

        s.actor(sends, name=name, slot=seg.my_slot, mortal=mortal)

    def vcore(
        self, vcoreid: int, *, asleep: bool = True, user: bool = False, poll: bool = False, mortal: bool = True
    ) -> Any:
        """An actor that hosts a vcore: works, yields, sleeps, wakes, for ever. `asleep`: that is how it starts. `user`: in
        place of sleeping it runs user code, which only the interrupt ends. `poll`: it sleeps in an event loop's poll."""
        seg = self.attach()
        vc = self.recorder(seg, vcoreid)
        vc.note, vc.polls = self.s.note, poll
        parlib = self.parlib.vcore
        assert self.parlib.recover.host_vcore(seg, vcoreid)
        parlib.disable_notifs(vc)
        come_back = self.parlib.poll.come_back
        if poll:
            self.parlib.poll.sleep_in_poll(vc)
        assert parlib.vcore_entry(vc)
        if asleep:
            while not parlib.vcore_yield(vc):
                parlib.work(vc)
        s = self.s

        def sleeps() -> None:
            if not poll:
                vc.sleep()
                return
            s.rest(vcoreid)
            while not come_back(vc):
                s.rest(vcoreid)

        def lives() -> None:
            if asleep:
                sleeps()
            while True:
                if parlib.work(vc) == 0:
                    if not user:
                        if parlib.vcore_yield(vc):
                            sleeps()
                        continue
                    # An interrupt in vcore context is thrown away: whoever leaves it looks at the news itself.
                    s.interrupt(vcoreid)
                    s.rest(vcoreid)
                    if parlib.leave_vcore_context(vc):
                        s.rest(vcoreid)
                        parlib.disable_notifs(vc)

        self.hosts[vcoreid] = seg
        s.actor(lives, name=f"vcore {vcoreid}", slot=seg.my_slot, mortal=mortal)
        return vc

    def supervisor(self, *names: str) -> None:
        """For each of these actors one that sleeps until it has died, and then settles what it held."""
        for name in names:
            self._watcher(name)

    def recoverer(self, name: str, vcoreid: int, gone: int, *, after: str, mbox: int | None = None) -> None:
        """An actor that sleeps until another has died, then takes over what a vcore's host had; `mbox`: and this one."""
        seg, s, parlib, d = self.attach(), self.s, self.parlib, self.life.machine.door
        number = s.names.index(after)
        vcpd, box = self.kern.layout.vcpd_at(self.at, vcoreid), self.kern.layout.mbox_at(self.at, mbox or 0)

        def recovers() -> None:
            # Looked at first, so that they are known to be shared: a death is explored where others can tell.
            d.ld64(seg.mem, vcpd + const.VCPD_BIT)
            d.ld64(seg.mem, box + const.MB_BITMAP)
            s.rest(DIED + number)
            parlib.recover.recover_vcore(seg, vcoreid, gone)
            if mbox is not None:
                parlib.mbox.recover_mbox(seg, mbox)

        s.actor(recovers, name=name, slot=seg.my_slot, mortal=False)

    def _watcher(self, name: str) -> None:
        number = self.s.names.index(name)
        seg = self.attach()
        dead = next(slot for slot, actor in self.s.slots.items() if actor == number)
        vcoreid = next((v for v, host in self.hosts.items() if host.my_slot == dead), 0)
        is_vcore = any(host.my_slot == dead for host in self.hosts.values())
        s, kern, recover = self.s, self.kern, self.parlib.recover
        him = dead | 1 << 12

        def watches() -> None:
            s.rest(DIED + number)
            if is_vcore:
                kern.proc.unhost_vcore(seg, vcoreid)
            recover.recover_vcore(seg, vcoreid, him if is_vcore else 0)
            recover.announce(seg)

        s.actor(watches, name=f"watcher of {name}", mortal=False, slot=seg.my_slot)


def _recorder(life: ModuleType) -> type:
    """A vcore that notes what it is given. One class for each load of the protocol."""
    made: type | None = life.__dict__.get("check_recorder")
    if made is not None:
        return made
    base = life.parlib.vcore.VCore
    mbox, vcore_module, layout = life.parlib.mbox, life.parlib.vcore, life.kern.layout
    d = life.machine.door

    class Recorder(base):  # type: ignore[misc,valid-type]
        """Notes ("got", arg) and ("on", arg, vcore) of messages, what is in the word `looks_at` when it has a bit, and
        ("bit", type)."""

        note: Any
        polls = False
        looks_at = 0

        def deliver(self, cur: Any, at: int) -> int:
            s = self.s
            arg = d.ld16(s.mem, at + const.SL_ARG1)
            two = d.ld32(s.mem, at + const.SL_ARG2)
            three = d.ld64(s.mem, at + const.SL_ARG3)
            four = d.ld64(s.mem, at + const.SL_ARG4)
            if d.ld16(s.mem, at + const.SL_TYPE) == TYPE:
                assert arg == two == three == four, f"G3: half an event: {arg}, {two}, {three}, {four}"
            where = cur.taken
            self.note("got", arg)
            self.note("on", arg, self.vcoreid)
            mbox.put_done(s, cur, where)
            return 0

        def deliver_bit(self, cur: Any, ev_type: int) -> int:
            if self.looks_at:
                self.note("saw", d.ld64(self.s.mem, self.looks_at))
            self.note("bit", ev_type)
            return 0

        def sleep(self) -> int:
            if self.polls:
                return 0
            s = self.s
            at = layout.map_at(s, self.vcoreid)
            w = d.ld64(s.mem, at)
            while not life.kern.proc.is_running(w & 15) and w & 15 != const.VC_AWAY:
                d.futex_wait(s.mem, at, w, -1)
                w = d.ld64(s.mem, at)
            vcore_module.vcore_entry(self)
            return 0

    Recorder.__module__ = "upcall_checked_recorder"
    life.__dict__["check_recorder"] = Recorder
    return Recorder
