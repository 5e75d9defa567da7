"""The segment of one scene, and everybody in it but the victim: its supervisor, its other vcores, another sender."""

from __future__ import annotations

import os
import shutil
import struct
import time
from collections.abc import Callable
from typing import Any

import upcall
from protocol import Bench
from sweep.host import Host
from sweep.ledger import Ledger
from upcall.errors import MailboxFull
from upcall.front import port
from upcall.host import owner
from upcall.host import segment as files
from upcall.host.handle import Handle
from upcall.host.segment import Geometry
from upcall.host.settle import settle
from upcall.kern import arena, const, event, layout, pages, ucq
from upcall.kern import proc as kernel
from upcall.kern.layout import vcpd_at
from upcall.parlib import mbox
from upcall.parlib import vcore as parlib
from upcall.parlib.recover import announce

NAME = "sweep"
TYPE = "event"
QUEUE = "queue"
SETUP, OTHERS = 1, 128
"""Numbers of events: what the scene begins with and the victim sends from 1, the other sender's from 128."""
ROUNDS_MAX = 50


class World(Bench):
    """One segment. It borrows from `Bench` how to look at a segment's words."""

    def __init__(self, scene: Any, ledger: Ledger) -> None:
        self.scene, self.ledger = scene, ledger
        scene.ledger = ledger
        Geometry.for_memory = lambda *sizes: geometry(scene)  # type: ignore[method-assign,assignment]
        self.layout, self.pages, self.arena, self.ucq = layout, pages, arena, ucq
        self.mbox, self.event, self.proc = mbox, event, kernel
        self.program = upcall.Proc(NAME, vcores=scene.vcores, spin_us=0)
        scene.define(self.program)
        scene.program = self.program
        self.segment = owner.open_for_owner(self.program)
        self._attach()
        self.adopted: Any = None
        self.spoiled = False
        if not scene.attended:
            self.segment.detach(self.segment.supervisor)
        self.first = bytes(self.segment.memory[const.HEADER_SIZE : self.at.arena])
        self.hosts: dict[int, Host] = {}
        self.next_setup, self.next_other, self.ghosts = SETUP, OTHERS, 0

    def _attach(self) -> None:
        """Everybody but the victim."""
        scene = self.scene
        self.at, self.buffer = self.segment.seg, self.segment.memory
        self.sup = self.segment.attach(const.ROLE_SUPERVISOR)
        self.handle = Handle(self.segment, may_register=True)
        self.number = self.handle.resolve(TYPE)
        self.queue_number = self.handle.queues.get(QUEUE, 0)
        self.other = port.Sender(
            self.segment.attachment, self.segment.attach(const.ROLE_SENDER), self.handle, self.queue_number,
            port.current_thread(),
        )  # fmt: skip
        self.mailer = self.handle.vcore_sender()
        self.names = [self.segment.attach(const.ROLE_VCORE) for _ in range(scene.vcores)]
        self.fifos = [
            os.open(self.segment.path / f"vc{v}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            for v in range(scene.vcores)
        ]

    def reset(self) -> None:
        """Everything as it was when the scene was made."""
        self._let_go()
        self.segment.memory[const.HEADER_SIZE : self.at.arena] = self.first
        self.ledger.clear()
        self.hosts.clear()
        self.next_setup, self.next_other, self.ghosts = SETUP, OTHERS, 0
        for v in range(self.scene.vcores):
            while self._interrupted(v):
                pass

    def _interrupted(self, v: int) -> bool:
        try:
            return bool(os.read(self.fifos[v], 4096))
        except BlockingIOError:
            return False

    def all_leave(self) -> None:
        """Nobody is attached any more, until `come_back`."""
        self.spoiled = True
        self._let_go()
        while self.fifos:
            os.close(self.fifos.pop())
        self.segment.close()

    def come_back(self) -> None:
        self.segment = files.open_segment(NAME)
        self._attach()

    def adopt(self) -> None:
        """Somebody starts this process again, and attends it."""
        self.adopted = owner.open_for_owner(self.program)

    def _let_go(self) -> None:
        if self.adopted is not None:
            self.adopted.close()
            self.adopted = None

    def wait_for(self, pid: int, true: Callable[[], Any]) -> int | None:
        """Waits until something is true of a victim at work. Its status, if it has died, stopped or ended before."""
        while not true():
            found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if found:
                return status
            time.sleep(0.0002)
        return None

    def close(self) -> None:
        self.all_leave()
        shutil.rmtree(self.segment.path, ignore_errors=True)

    # ---- vcores ------------------------------------------------------------------------------------------------------

    def host(self, v: int) -> Host:
        """Hosts a vcore here; it is in vcore context, and has not looked at anything yet."""
        found = Host(self.segment, self.names[v], v, self.ledger)
        self.scene.register(found, self.number)
        found.enter()
        self.hosts[v] = found
        return found

    def asleep(self, v: int) -> Host:
        found = self.host(v)
        found.idle()
        return found

    def settle(self) -> None:
        """The hosts do what they do by themselves, until none of them does anything."""
        for _ in range(ROUNDS_MAX):
            busy = [host.step(self.fifos[v]) for v, host in self.hosts.items()]
            if not any(busy):
                return
        raise AssertionError("the vcores never come to rest")

    def ghost(self, vcoreid: int | None = None) -> Ghost:
        """Somebody attached who will die, without a process of its own; the host of a vcore, if it is given one."""
        self.ghosts += 1
        return Ghost(self, vcoreid)

    def in_hands(self) -> tuple[int, ...]:
        """Numbers of the events that somebody has in hand."""
        slots = (self.ucq.slot_at(self.at, place) for box in range(self.at.nr_mboxes) for place in self.walk(box))
        taken = [slot for slot in slots if self.get(slot) & 15 == const.TAKEN]
        return tuple(self.get(slot + const.SL_ARG1, 2) for slot in taken)

    def bit_in_hand(self, v: int) -> bool:
        return bool(self.segment.u64(vcpd_at(self.at, v) + const.VCPD_BIT))

    def bury(self, v: int, pid: int = 0) -> None:
        """What the supervisor does when a worker has died, whose process it was."""
        settle(self.segment, self.sup, v, ended=pid)
        announce(self.sup)

    # ---- senders -----------------------------------------------------------------------------------------------------

    def setup(self, size: int = 16) -> int:
        """An event of the scene's first state, which is owed like any other."""
        self.next_setup += 1
        return self._send(self.next_setup - 1, size)

    def another(self) -> int:
        """An event of the other sender; 0 if it found no room."""
        self.next_other += 1
        return self._send(self.next_other - 1, 16)

    def _send(self, number: int, size: int) -> int:
        try:
            self.scene.send(self.other, self.mailer, self.ledger, number, size)
        except MailboxFull:
            return 0
        return number

    # ---- looking -----------------------------------------------------------------------------------------------------

    def check_handled(self, *, but: tuple[int, ...] = (), bit: bool = True) -> None:
        """Every event whose send has returned has been handled."""
        lost = [number for number in self.ledger.lost() if number not in but]
        assert not lost, f"lost: {lost}{self.where()}"
        assert not (bit and self.ledger.bit_owed), f"the bit is lost{self.where()}"

    def where(self) -> str:
        """The words that say what goes on, for messages of failure."""
        words = [f"vcore {v}: {self.map(v)}, pending {self.vcpd(v, const.VCPD_NOTIF_PENDING)}, flags "
                 f"{self.vcpd(v, const.VCPD_FLAGS):#x}" for v in range(self.scene.vcores)]  # fmt: skip
        boxes = {box: [hex(self.slot_word(where)) for where in self.walk(box)] for box in range(self.at.nr_mboxes)}
        waiting = {box: found for box, found in boxes.items() if found}
        return f"; state {self.state()}, alert {self.alert(self.queue_number):#x}, {'; '.join(words)}; slots {waiting}"

    def check_counts(self, *, deaths: int) -> None:
        """Nothing torn; nothing handled twice, but once more for a death in whose hands it was."""
        assert not self.ledger.torn, "a handler was given what nobody sent"
        assert not self.ledger.bit_invented, "a bit was handled that nobody sent"
        for number in self.ledger.sent():
            here, there = self.ledger.handled(number), self.ledger.by_victim(number)
            if self.scene.may_repeat:
                continue
            assert here <= 1, f"event {number} was handled {here} times, and {there} times by the victim"
            assert there <= 1, f"event {number} was handled {there} times by the victim"
            assert here + there <= 1 + deaths, f"event {number} was handled by {here} and the victim"
            least, most = int(bool(here and there)), deaths + self.ghosts
            times = self.ledger.times(number)
            assert least <= times <= most, f"event {number} says that it was redelivered {times} times"

    def check_order(self) -> None:
        """Of each sender, in the order sent."""
        order = self.ledger.order()
        for mine in ([n for n in order if n < OTHERS], [n for n in order if n >= OTHERS]):
            assert mine == sorted(mine), f"out of order: {order}"

    def check_empty(self) -> None:
        """Nothing waits, in no mailbox."""
        for box in range(self.at.nr_mboxes):
            assert not mbox.waiting_in(self.sup, box, 0), f"something is left in mailbox {box}{self.where()}"
            assert not mbox.has_bits(self.sup, box), f"a bit is left in mailbox {box}"

    def check_leaks(self) -> None:
        """Pages, blocks, the lock and attach slots are all to be had again."""
        # What a full pool would do; a payload that the arena's last user left is its scavenger's.
        pages.scavenge_pages(self.sup)
        arena.scavenge_arena(self.sup)
        assert not self.pages_lost(), f"pages lost: {sorted(self.pages_lost())}"
        assert self.blocks_in_use() == 0, f"{self.blocks_in_use()} blocks are in use"
        assert kernel.proc_lock(self.sup), "proc_lock is lost"
        kernel.proc_unlock(self.sup)
        taken: list[Any] = []
        try:
            for _ in range(self.at.max_slots - 1 - len(self.segment.slots._mine) + (0 in self.segment.slots._mine)):
                taken.append(self.segment.attach(const.ROLE_SENDER))
        finally:
            for seg in taken:
                self.segment.detach(seg)

    def check_end(self, *, deaths: int) -> None:
        """The end of every round: all vcores hosted and asleep, everything handled, nothing left."""
        for v in range(self.scene.vcores):
            if v not in self.hosts:
                self.host(v)
        for host in self.hosts.values():
            if host.in_user_code:
                host.disable()
        self.settle()
        # As a drain does: a claim that a dead sender left in a sleeping vcore's mailbox is settled once that vcore looks.
        for v in self.hosts:
            kernel.startcore(self.sup, v)
        self.settle()
        self.check_handled()
        self.check_counts(deaths=deaths)
        self.check_empty()
        for v in range(self.scene.vcores):
            assert self.map(v) == const.VC_OFFLINE, f"vcore {v} is in state {self.map(v)}{self.where()}"
        self.check_leaks()


class Ghost:
    """An attached actor; `die` lets its locks fall, and nothing else."""

    def __init__(self, w: World, vcoreid: int | None) -> None:
        self.segment = files.open_segment(NAME)
        self.seg = self.segment.attach(const.ROLE_VCORE)
        if vcoreid is not None:
            self.host = Host(self.segment, self.seg, vcoreid, w.ledger)
            self.host.enter()

    def take(self) -> None:
        """Takes the next event of the queue in hand."""
        cursor = parlib.cursor_of(self.host.vcore, 0)
        at = mbox.take(self.seg, cursor)
        block = struct.unpack_from("Q", self.segment.memory, at + const.SL_BLOCK)[0]
        if struct.unpack_from("I", self.segment.memory, at + const.SL_LEN)[0] > const.INLINE_MAX:
            arena.own_block(self.seg, block)

    def die(self) -> None:
        self.segment.slots._mine.clear()
        self.segment.close()


def geometry(scene: Any) -> Geometry:
    """Small, so that a sweep over everything is short: the least numbers that show each case."""
    return Geometry(
        max_vcores=scene.vcores, max_queues=2, max_types=const.TYPE_PROGRAM + 8, max_slots=10, page_slots=4,
        nr_pages=scene.pages, nr_spans=6,
    )  # fmt: skip
