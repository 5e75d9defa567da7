"""Hostile bytes in the segment of a running process: who writes them, and who sends meanwhile."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import mmap
import os
import random
import signal
import struct
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, Any

import upcall
from procs import Notes, Words
from upcall import EventType, inspect
from upcall.host.segment import open_segment
from upcall.kern import const

QUEUES = ("work", "limited", "blocking", "batch", "threads", "spam", "bits", "orbit")


class Interrupted(Exception):
    """A blocked send was interrupted, as by Ctrl-C."""


class Scribbler:
    """Writes words into a segment: random ones, ones like the protocol's, and ones copied from elsewhere in it, at places
    that matter. `header`: into the header, too."""

    def __init__(self, name: str, seed: str, *, header: bool = False) -> None:
        segment = open_segment(name)
        self.seg = seg = segment.seg
        self.slots = segment.geometry.max_slots
        self.rng = random.Random(seed)
        with open(segment.path / "segment", "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), seg.size)
        segment.close()
        # (where, size of a record, number of records, bytes of a record that are worth it): each as likely as the others.
        self.regions = [
            (seg.slots, const.SLOT_STRIDE, min(16, seg.max_slots), 64),
            (seg.procinfo, const.PROCINFO_SIZE, 1, const.PROCINFO_SIZE),
            (seg.procinfo, const.PROCINFO_SIZE, 1, 64),
            (seg.vcoremap, 8, 4, 8),
            (seg.vcpds, const.VCPD_STRIDE, 4, 416),
            (seg.queues, const.EVQ_STRIDE, len(QUEUES) + 1, 72),
            (seg.mboxes, const.MBOX_STRIDE, 8, 384),
            (seg.mboxes + 2 * seg.max_vcores * const.MBOX_STRIDE, const.MBOX_STRIDE, len(QUEUES), 384),
            (seg.mboxes + (seg.nr_mboxes - 1) * const.MBOX_STRIDE, const.MBOX_STRIDE, 1, 200),
            (seg.types, const.NAME_BYTES, 64, const.NAME_BYTES),
            (seg.bitmap, 8, (seg.nr_pages + 63) // 64, 8),
            (seg.spans, const.SPAN_STRIDE, seg.nr_spans, 256),
            (seg.pages, seg.page_size, seg.nr_pages, 32),
            (seg.pages + const.PAGE_HEADER, seg.page_size, seg.nr_pages, 2048),
            (seg.pages, seg.nr_pages * seg.page_size, 1, seg.nr_pages * seg.page_size),
            (seg.arena, const.SPAN_SIZE, seg.nr_spans, const.SPAN_SIZE),
        ]
        if header:
            self.regions += [(0, const.HEADER_SIZE, 1, 128)] * 4

    def where(self) -> int:
        """A place that matters."""
        at, stride, count, used = self.rng.choice(self.regions)
        return (
            at + self.rng.randrange(min(count, self.rng.choice([2, count]))) * stride + self.rng.randrange(0, used, 8)
        )

    def word(self) -> int:
        """A word that is wrong in one way or another."""
        rng, seg = self.rng, self.seg
        state, gen = rng.randrange(9), rng.randrange(4)
        name = rng.choice([0, (rng.randrange(4) << 12) | rng.randrange(12), 0xFFFFFFFF, rng.getrandbits(32)])
        edge = rng.choice([-1, 0, 1])
        found: int = rng.choice(
            [
                lambda: rng.getrandbits(64),
                lambda: rng.randrange(40),
                lambda: state | (gen << 8) | (name << 32),
                lambda: state | (rng.getrandbits(28) << 4) | (name << 32),
                lambda: rng.randrange(seg.nr_pages + 2) | (rng.choice([0, 1, 254, 255, 256]) << 20) | (gen << 32),
                lambda: rng.choice([seg.size, seg.arena, seg.pages, seg.nr_pages, seg.nr_spans, seg.nr_mboxes]) + edge,
                lambda: rng.choice([seg.max_vcores, seg.max_queues, seg.max_types, seg.max_slots]) + edge,
                lambda: (1 << rng.choice([8, 16, 20, 24, 31, 32, 40, 63, 64])) + edge,
                lambda: 1 << rng.randrange(64),
                lambda: int(struct.unpack_from("<Q", self.memory, self.where())[0]),
            ]
        )()
        return found & (1 << 64) - 1

    def scribble(self) -> None:
        """One word, all of it, or a part."""
        at, word, rng = self.where(), self.word(), self.rng
        if rng.random() < 0.2:
            word = struct.unpack_from("<Q", self.memory, at)[0] ^ (1 << rng.randrange(64))
        if rng.random() < 0.15:
            size = rng.choice([1, 2, 4])
            at += rng.randrange(0, 8, size)
            self.memory[at : at + size] = (word & (1 << 8 * size) - 1).to_bytes(size, "little")
        else:
            struct.pack_into("<Q", self.memory, at, word)

    def run(self, seconds: float) -> int:
        """Bursts and pauses: now and then some of it must come to rest before the next. How many words were written."""
        end, written = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            for _ in range(self.rng.choice([1, 1, 4, 30, 300])):
                self.scribble()
                written += 1
            time.sleep(self.rng.choice([0, 0.0005, 0.005, 0.02]))
        return written


def program(faults: IO[str], vcores: int) -> upcall.Proc:
    """A process with queues of every kind, whose handlers look at all of an event. A worker that crashes says so in the
    file."""
    flag = upcall.EventFlag
    proc = upcall.Proc("hostile", vcores=vcores, memory="4 MiB", preempt_after_ms=20, on_hang="kill")
    proc.queue("work", on_full="raise")
    proc.queue("limited", on_full="bit", limit=16)
    proc.queue("blocking", on_full="block", limit=16)
    batch = proc.queue("batch", on_full="raise", on_death="dead-letter")
    proc.queue("threads", on_full="raise", flags=flag.IPI | flag.INDIR | flag.FALLBACK | flag.THREAD)
    proc.queue("spam", flags=flag.IPI | flag.SPAM_PUBLIC)
    proc.queue("bits", flags=flag.IPI | flag.NOMSG | flag.INDIR | flag.FALLBACK)
    proc.queue("orbit", on_full="raise", flags=flag.IPI | flag.INDIR | flag.FALLBACK | flag.ROUNDROBIN)
    proc.kernel_queue(EventType.POSIX_SIGNAL, batch)

    def look(ev: upcall.Event) -> None:
        payload = bytes(ev.payload)
        repr((ev, ev.arg1, ev.arg2, ev.arg3, ev.arg4, ev.queue, ev.vcore, ev.redeliveries, payload[:9], payload[-9:]))

    proc.main(lambda: faulthandler.enable(faults))

    @proc.on("event")
    def event(ev: upcall.Event) -> None:
        look(ev)
        if ev.arg1 == 1000:
            proc.vcore(ev.vcore).send("event", arg1=1)  # handlers send, too
        elif ev.arg1 == 2000:
            os._exit(7)

    @proc.on_batch("event", queue=batch)
    def events(many: Any) -> None:
        for ev in many:
            look(ev)

    return proc


def sending(seed: str, notes: Notes, words: Words, me: int) -> None:
    """A sender's life: `words[me]` changes with each step that has returned, until `words[0]` is set."""
    armed = [False]

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if armed[0]:
            armed[0] = False
            raise Interrupted

    # A queue may have been told to wait for room: each step is interrupted after a while, at most once.
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    rng = random.Random(seed)
    while not words[0]:
        with contextlib.suppress(upcall.UpcallError, Interrupted), upcall.connect("hostile") as remote:
            for _ in range(rng.randrange(200)):
                armed[0] = True
                try:
                    _step(remote, rng)
                except (upcall.UpcallError, Interrupted):
                    pass
                except Exception:
                    notes(traceback.format_exc())
                armed[0] = False
                words[me] = (words[me] + 1) % 256
                if words[0]:
                    return
        words[me] = (words[me] + 1) % 256


def _step(remote: upcall.Remote, rng: random.Random) -> None:
    sizes = [0, 1, 88, 89, 600, 5000, 33000, 70000]

    def send() -> None:
        name = rng.choice(QUEUES)
        payload = (
            b"" if name == "bits" else bytes([rng.randrange(256)]) * rng.choice(sizes[:3] if name == "spam" else sizes)
        )
        arg1 = 0 if name == "bits" else rng.choice([0, 1, 1000]) if rng.random() < 0.99 else 2000
        remote.queue(name).send("event", payload, arg1=arg1, vcore=rng.choice([None, 0, 2]))

    def many() -> None:
        remote.queue(rng.choice(("work", "batch"))).send_many("event", [b"x" * rng.choice(sizes) for _ in range(20)])

    def to_vcore() -> None:
        remote.vcore(rng.randrange(3)).send("event", b"y" * rng.choice(sizes), private=rng.random() < 0.5)

    what: Callable[[], object] = rng.choice(
        [send] * 12
        + [many] * 4
        + [to_vcore] * 4
        + [lambda: remote.signal(signal.SIGUSR1), remote.stats, lambda: remote.kernel_event(EventType.ALARM)]
        + [lambda: inspect.snapshot("hostile"), remote.dead_letters, lambda: inspect.dump("hostile")]
    )
    what()


def digest(path: Path) -> bytes:
    """A number for what is in a file."""
    return hashlib.sha256(path.read_bytes()).digest()
