"""The end of a process against senders: what is sent is refused with GONE, or stays in the segment for the next start."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any

import pytest

import upcall
from procs import LONG_S, discard, ended, forked, running, until
from protocol import USUAL, Bench, StepLife
from upcall import EventFlag, Proc
from upcall.host.segment import folder
from upcall.kern import const


def to_queue(flags: int, *, own: bool = True) -> Callable[[Bench, Any], int]:
    """A send to an event queue of such a kind."""

    def send(bench: Bench, sender: Any) -> int:
        return bench.send(sender, 7)

    def make(bench: Bench, sender: Any) -> int:
        bench.queue(flags=flags, own=own)
        return send(bench, sender)

    return make


def to_vcore(flags: int) -> Callable[[Bench, Any], int]:
    """Mail to a vcore."""
    return lambda bench, sender: int(bench.event.post_vcore_event(sender, bench.message(7), 1, flags))


def kernel_event(bench: Bench, sender: Any) -> int:
    """A kernel event, to the queue registered for it."""
    bench.queue()
    bench.set(bench.layout.kernel_evt_at(bench.at, const.EV_POSIX_SIGNAL), 1, 4)
    return int(bench.event.send_posix_signal(sender, bench.message(), 15))


SENDS = {
    "a queue": to_queue(USUAL),
    "a queue of bits": to_queue(USUAL | const.EVENT_NOMSG),
    "a vcore's mailbox": to_queue(const.EVENT_IPI, own=False),
    "its private one": to_queue(const.EVENT_IPI | const.EVENT_VCORE_PRIVATE, own=False),
    "a spam queue": to_queue(USUAL | const.EVENT_SPAM_PUBLIC, own=False),
    "a spam queue of bits": to_queue(USUAL | const.EVENT_SPAM_PUBLIC | const.EVENT_NOMSG, own=False),
    "a vcore": to_vcore(0),
    "a vcore alone": to_vcore(const.EVENT_VCORE_PRIVATE),
    "a kernel queue": kernel_event,
}


@pytest.mark.parametrize("vcores", [1, 4])
@pytest.mark.parametrize("kind", SENDS)
@pytest.mark.parametrize("inner", ["the end in a send", "a send in the end"])
def test_an_event_sent_while_the_process_ends_is_refused_or_stays(
    step_life: StepLife, kind: str, vcores: int, inner: str
) -> None:
    n, more, fates = 0, True, set()
    while more:
        bench = Bench(step_life, vcores=max(vcores, 2) if kind.startswith("a vcore") else vcores)
        sender, owner = bench.actor(), bench.actor()
        bench.proc.proc_wait(owner)
        got: dict[str, Any] = {}

        def send() -> None:
            got["status"] = SENDS[kind](bench, sender)  # noqa: B023

        def end() -> None:
            got["removed"] = bench.life.parlib.ending.end_process(owner)  # noqa: B023

        whole, part = (send, end) if inner == "the end in a send" else (end, send)
        more = step_life.interrupted(n, whole, part)
        n += 1
        if not more:
            break
        assert got["status"] in (const.OK, const.GONE)
        if got["status"] == const.OK:
            assert not got["removed"]
            assert bench.life.parlib.ending.something_waits(owner)
        fates.add((got["status"], got["removed"]))
    assert n > 5
    assert (const.GONE, True) in fates
    if inner == "the end in a send":
        assert (const.OK, False) in fates


QUEUES: dict[str, EventFlag | None] = {
    "work": upcall.flags.WORK_QUEUE,
    "spam": EventFlag.SPAM_PUBLIC | EventFlag.IPI,
    "mail": None,
}


@pytest.mark.parametrize("kind", QUEUES)
def test_senders_against_the_end_of_a_process_lose_nothing(kind: str) -> None:
    words = mmap.mmap(-1, 1 << 20)  # how many were sent; stop sending; one byte for each event handled

    def define() -> Proc:
        proc = Proc("box", vcores=2, stop="now")
        proc.queue("orders", flags=QUEUES[kind] or upcall.flags.WORK_QUEUE)

        @proc.on("order")
        def order(ev: upcall.Event) -> None:
            words[16 + ev.arg3] = 1

        return proc

    def sender() -> None:
        remote = until(connected, "the process")
        send = remote.vcore(1).send if kind == "mail" else remote.queue("orders").send
        sent = 0
        try:
            while not words[8] and sent < len(words) - 17:
                send("order", arg3=sent)
                sent += 1
                struct.pack_into("Q", words, 0, sent)
        except (upcall.ProcessGone, upcall.MailboxFull, upcall.MailboxBusy):
            pass

    for _ in range(12):
        words[:] = bytes(len(words))
        proc = define().start()
        child = forked(sender)
        until(lambda: words[0] or words[1], "the first event")
        proc.stop(timeout=LONG_S)
        words[8] = 1
        assert ended(child) == 0
        if (folder() / "box").exists():
            with running(define(), stop="drain"):
                pass
        sent = struct.unpack_from("Q", words, 0)[0]
        assert words[16 : 16 + sent] == b"\1" * sent
    discard("box")


def connected() -> upcall.Remote | None:
    try:
        return upcall.connect("box")
    except upcall.UpcallError:
        return None
