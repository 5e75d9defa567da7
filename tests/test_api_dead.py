"""Events that kill their workers, as a program and its users see them: redelivery, dead letters, reports."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import upcall
from procs import LONG_S, Gate, Notes, Words, discard, ended, forked, left, log_to, running, until
from procs import vcore_info as vcores
from upcall import DeadLetter, EventFlag, FlagError, MailboxFull, NoSuchQueue, Proc, inspect
from upcall.kern.layout import dead_mbox, mbox_at

POISON = 7
"""arg1 of the event whose handler kills its worker."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def define(notes: Notes, *, vcores: int = 2, host: Any = "process", **policy: Any) -> Proc:
    """A process whose queue "orders" has such a policy; every handling is noted before the worker dies."""
    proc = Proc("box", vcores=vcores, host=host)
    proc.queue("orders", **policy)
    proc.queue("others")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1, ev.redeliveries)
        if ev.arg1 == POISON:
            die()

    return proc


def queue_of(proc: Proc) -> upcall.Queue:
    """Its queue "orders", whatever the policy."""
    return proc._queues["orders"]


def leave(proc: Proc) -> None:
    """The process was stopped with dead letters: they are thrown away, and its segment with them."""
    assert left(proc.name) == 0
    (cleaned,) = inspect.clean(discard=True, only=[proc.name])
    assert cleaned.removed


# ---- definition ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"on_death": "shrug"}, ValueError, "on_death='shrug' must be one of 'redeliver', 'dead-letter', 'report'"),
        ({"on_death": None}, ValueError, "on_death=None must be one of"),
        ({"max_redeliveries": -1}, ValueError, "max_redeliveries=-1 is outside 0..14"),
        ({"max_redeliveries": 15}, ValueError, "max_redeliveries=15 is outside 0..14"),
        ({"max_redeliveries": True}, TypeError, "max_redeliveries=True must be an int, not bool"),
        ({"max_redeliveries": 1.0}, TypeError, "max_redeliveries=1.0 must be an int, not float"),
        ({"on_death": "report", "flags": EventFlag.NOMSG | EventFlag.INDIR | EventFlag.FALLBACK | EventFlag.IPI},
         FlagError, "bits, which are always delivered again: drop the flag or on_death='report'"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_is_refused(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        Proc("box", vcores=1).queue("orders", **options)


def test_a_queue_is_asked_for_again_by_its_name_alone() -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    assert proc.queue("orders") is queue
    with pytest.raises(ValueError, match="queue 'orders' of 'box' is defined already, with other options"):
        proc.queue("orders", on_death="report")


def test_the_policy_is_shown(notes: Notes) -> None:
    with running(define(notes, on_death="redeliver", max_redeliveries=5)) as proc:
        orders, others = proc.stats()["queues"]
        assert (orders["on_death"], orders["max_redeliveries"], orders["dead"]) == ("redeliver", 5, 0)
        assert (others["on_death"], others["max_redeliveries"]) == ("redeliver", 3)


# ---- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_poison_event_is_a_dead_letter_after_so_many_deaths_and_others_are_handled_once(
    notes: Notes, tmp_path: Path, most: int
) -> None:
    with log_to(tmp_path / "log") as log, running(define(notes, max_redeliveries=most)) as proc:
        for i in range(20):
            queue_of(proc).send("order", b"x" * 100 * i, arg1=i, arg2=i, arg3=i, arg4=i)
        assert proc.drain(LONG_S) == []
        (letter,) = proc.dead_letters()
        assert letter == DeadLetter(
            id=1, queue="orders", vcore=None, private=False, type="order", arg1=7, arg2=7, arg3=7, arg4=7, size=700,
            payload=b"x" * 700, deaths=1 + most,
        )  # fmt: skip
        counts = Counter(tuple(note) for note in notes.read())
        assert counts == Counter([(i, 0) for i in range(20) if i != POISON] + [(POISON, i) for i in range(most + 1)])
        stats = proc.stats()
        assert (stats["waiting"], stats["dead"], [q["dead"] for q in stats["queues"]]) == (0, 1, [1, 0])
        assert sum(v["dead_letters"] for v in stats["vcores"]) == 1
        assert sum(v["redelivered"] for v in stats["vcores"]) == most
    died = "1 worker died" if most == 0 else f"{1 + most} workers died"
    assert re.search(
        rf"WARNING box/vcore \d: event 'order' of queue 'orders' is a dead letter: {died} with it; "
        r"upcall dead box shows it, upcall dead box --resend sends it again",
        log.read_text(),
    )
    assert "stopped with 1 dead letter(s) (upcall dead box shows them)" in log.read_text()
    leave(proc)


def test_a_dead_letter_at_once(notes: Notes) -> None:
    with running(define(notes, on_death="dead-letter")) as proc:
        for i in range(12):
            queue_of(proc).send("order", arg1=i)
        assert proc.drain(LONG_S) == []
        assert [(letter.arg1, letter.deaths) for letter in proc.dead_letters()] == [(POISON, 1)]
        assert Counter(map(tuple, notes.read())) == Counter((i, 0) for i in range(12))
    leave(proc)


def test_a_reported_event_is_in_the_log_and_gone(notes: Notes, tmp_path: Path) -> None:
    with log_to(tmp_path / "log") as log, running(define(notes, on_death="report")) as proc:
        for i in range(12):
            queue_of(proc).send("order", bytes(i * 50), arg1=i)
        assert proc.drain(LONG_S) == []
        assert proc.dead_letters() == []
        assert sum(v["reported"] for v in proc.stats()["vcores"]) == 1
        assert Counter(map(tuple, notes.read())) == Counter((i, 0) for i in range(12))
    assert re.search(
        r"ERROR box/vcore \d: event 'order' of queue 'orders' is given up, as its queue says: 1 worker died with it; "
        r"<Event 'order' queue='orders' arg1=7 350 bytes vcore=\d redeliveries=1>",
        log.read_text(),
    )


def test_an_exception_is_no_death(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", on_death="dead-letter")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        raise ValueError(ev.arg1)

    with running(proc):
        queue.send("order")
        assert proc.drain(LONG_S) == []
        assert proc.dead_letters() == []


@pytest.mark.parametrize("most", [1, 3])
def test_a_poison_event_in_a_batch_takes_the_others_along_once(notes: Notes, most: int) -> None:
    """From then on each is handled alone."""
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", max_redeliveries=most)

    @proc.on_batch("order")
    def orders(batch: upcall.EventBatch) -> None:
        for ev in batch:
            notes(ev.arg1, ev.redeliveries, len(batch))
        if any(ev.arg1 == POISON for ev in batch):
            die()

    @proc.on("wait")
    def wait(ev: upcall.Event) -> None:
        until(lambda: len(inspect.snapshot("box").queues) and inspect.snapshot("box").queues[0].depth == 11)

    with running(proc):
        queue.send("wait")
        for i in range(10):
            queue.send("order", b"y" * 300 * i, arg1=i)
        assert proc.drain(LONG_S) == []
        (letter,) = proc.dead_letters()
        assert (letter.arg1, letter.deaths, letter.payload) == (POISON, 1 + most, b"y" * 2100)
        handled = notes.read()
        assert handled[:10] == [[i, 0, 10] for i in range(10)]
        rest = Counter(tuple(note) for note in handled[10:])
        assert rest == Counter(
            [(i, 1, 1) for i in range(10) if i != POISON] + [(POISON, times, 1) for times in range(1, most + 1)]
        )
    leave(proc)


def test_an_event_of_another_type_is_not_in_the_hands_of_a_batch(notes: Notes) -> None:
    """Batches that kill take along only what is in them."""
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on_batch("order")
    def orders(batch: upcall.EventBatch) -> None:
        if not batch[0].redelivered:
            die()

    @proc.on("other")
    def other(ev: upcall.Event) -> None:
        notes(ev.arg1, ev.redeliveries)

    @proc.on("wait")
    def wait(ev: upcall.Event) -> None:
        until(lambda: inspect.snapshot("box").queues[0].depth == 13)

    with running(proc):
        queue.send("wait")
        for i in range(4):
            queue.send("order")
            queue.send("order")
            queue.send("other", arg1=i)
        assert proc.drain(LONG_S) == []
        assert notes.read() == [[i, 0] for i in range(4)]
        assert proc.dead_letters() == []


def test_a_poison_event_in_uthread_context(notes: Notes) -> None:
    proc = Proc("box", vcores=2)
    flags = EventFlag.IPI | EventFlag.INDIR | EventFlag.FALLBACK | EventFlag.THREAD
    queue = proc.queue("orders", flags=flags, max_redeliveries=1)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1, ev.redeliveries)
        if ev.arg1 == POISON:
            die()

    with running(proc):
        for i in range(12):
            queue.send("order", arg1=i)
        assert proc.drain(LONG_S) == []
        assert [(letter.arg1, letter.deaths) for letter in proc.dead_letters()] == [(POISON, 2)]
        assert Counter(map(tuple, notes.read())) == Counter([(i, 0) for i in range(12)] + [(POISON, 1)])
    leave(proc)


@pytest.mark.parametrize("private", [False, True])
def test_poison_mail_to_a_vcore(notes: Notes, private: bool) -> None:
    """Mail has no queue, and the policy that queues have by themselves. Re-sent it goes to the same vcore."""
    proc, mild = Proc("box", vcores=2), Words(1)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.vcore, ev.redeliveries)
        if not mild[0]:
            die()

    with running(proc):
        proc.vcore(1).send("order", b"z" * 1000, arg1=POISON, private=private)
        (letter,) = until(proc.dead_letters, "a dead letter")
        assert (letter.queue, letter.vcore, letter.private, letter.deaths) == (None, 1, private, 4)
        assert letter.payload == b"z" * 1000
        assert proc.stats()["dead"] == 1
        assert [note[1] for note in notes.read()] == [0, 1, 2, 3]
        mild[0] = 1
        assert proc.resend() == 1
        until(lambda: len(notes.read()) == 5, "the letter to be handled")
        assert notes.read()[4][0] == 1 or not private
        assert proc.drain(LONG_S) == []


def test_a_poison_bit_is_delivered_again_and_again(notes: Notes) -> None:
    """A bit has no counter."""
    proc = Proc("box", vcores=1)
    flags = EventFlag.IPI | EventFlag.INDIR | EventFlag.FALLBACK | EventFlag.NOMSG
    queue = proc.queue("orders", flags=flags, max_redeliveries=1)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.is_bit)
        if len(notes.read()) < 5:
            die()

    with running(proc):
        queue.send("order")
        assert proc.drain(LONG_S) == []
        assert proc.dead_letters() == []
    assert notes.read() == [[True]] * 5


def test_a_poison_event_that_is_spammed(notes: Notes) -> None:
    with running(define(notes, flags=EventFlag.SPAM_PUBLIC | EventFlag.IPI, max_redeliveries=1)) as proc:
        for i in range(10):
            queue_of(proc).send("order", arg1=i)
        until(lambda: {letter.arg1 for letter in proc.dead_letters()} == {POISON}, "a dead letter")
        assert proc.drain(LONG_S) == []
        assert {letter.queue for letter in proc.dead_letters()} == {"orders"}
        assert {note[0] for note in notes.read()} == set(range(10))
    leave(proc)


# ---- dead letters ----------------------------------------------------------------------------------------------------


def poisoned(notes: Notes, count: int = 3) -> Proc:
    """A process with letters 1, 2, 3 ... of the queue "orders"; a handler kills while the first word is 0."""
    proc = Proc("box", vcores=2, memory="4 MiB")
    orders = proc.queue("orders", on_death="dead-letter")
    proc.queue("others", on_death="dead-letter")
    mild = Words(1)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1, ev.redeliveries, bytes(ev.payload).decode())
        if not mild[0]:
            die()

    proc.start()
    for i in range(count):
        orders.send("order", b"%d" % i * (100 * i), arg1=i)
        assert proc.drain(LONG_S) == []
    mild[0] = 1
    assert [letter.id for letter in proc.dead_letters()] == list(range(1, count + 1))
    return proc


def stopped(proc: Proc) -> None:
    proc.stop(timeout=LONG_S)
    discard(proc.name)


def test_letters_sent_again_are_ordinary_events(notes: Notes) -> None:
    proc = poisoned(notes)
    before = proc.stats()
    assert proc.resend() == 3
    assert proc.drain(LONG_S) == []
    assert sorted(notes.read()[3:]) == [[i, 0, f"{i}" * (100 * i)] for i in range(3)]
    assert proc.dead_letters() == []
    assert proc.resend() == 0
    sent = [sum(slot["sent"] for slot in stats["slots"]) for stats in (before, proc.stats())]
    assert sent[1] - sent[0] == 3
    proc.stop(timeout=LONG_S)
    assert not list(inspect.snapshots())  # nothing is left: the segment is gone


def test_some_letters_are_sent_again_or_discarded(notes: Notes) -> None:
    proc = poisoned(notes, 5)
    letters = proc.dead_letters()
    assert proc.resend([letters[1], 4]) == 2
    assert proc.discard([5, letters[0], 5]) == 2
    assert proc.drain(LONG_S) == []
    assert sorted(note[0] for note in notes.read()[5:]) == [1, 3]
    assert [letter.id for letter in proc.dead_letters()] == [3]
    # What is there no more is left out.
    assert proc.resend(letters) == 1
    assert proc.discard(letters) == 0
    stopped(proc)


def test_letters_of_a_queue(notes: Notes) -> None:
    proc = poisoned(notes, 1)
    assert len(proc.dead_letters("orders")) == 1
    assert proc.dead_letters("others") == []
    with pytest.raises(NoSuchQueue, match="no queue 'nothing'"):
        proc.dead_letters("nothing")
    stopped(proc)


def test_payloads_are_left_out_if_not_wanted(notes: Notes) -> None:
    proc = poisoned(notes)
    assert [(letter.size, letter.payload) for letter in proc.dead_letters(payload=False)] == [
        (0, b""), (100, b""), (200, b""),
    ]  # fmt: skip
    stopped(proc)


@pytest.mark.parametrize("wrong", ["1", 1.0, True, None])
def test_what_is_no_letter_is_refused(notes: Notes, wrong: Any) -> None:
    proc = poisoned(notes, 1)
    for action in (proc.resend, proc.discard):
        with pytest.raises(TypeError, match="must be a DeadLetter or its id"):
            action([wrong])
    assert len(proc.dead_letters()) == 1
    stopped(proc)


def test_letters_outlive_their_process(notes: Notes, tmp_path: Path) -> None:
    proc = poisoned(notes)
    letters = proc.dead_letters()
    proc.stop(timeout=LONG_S)
    with upcall.connect("box") as remote:
        assert remote.dead_letters() == letters
        assert remote.resend([1]) == 1  # into the segment: its next start handles it
        assert remote.stats()["waiting"] == 1
    second = Proc("box", vcores=1)
    second.queue("orders")
    second.on("order")(lambda ev: notes("second", ev.arg1))
    with running(second):
        assert second.drain(LONG_S) == []
        assert second.dead_letters() == letters[1:]
        assert second.discard() == 2
    assert notes.read()[-1] == ["second", 0]
    assert not list(inspect.snapshots())


def test_ids_are_never_used_again(notes: Notes) -> None:
    """Over several pages of the mailbox."""
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", on_death="dead-letter")

    @proc.on_batch("order")
    def orders(batch: upcall.EventBatch) -> None:
        die()

    with running(proc):
        for first in range(0, 700, 350):
            queue.send_many("order", [b"%d" % i for i in range(first, first + 350)])
            assert proc.drain(LONG_S) == []
            letters = proc.dead_letters()
            assert [letter.id for letter in letters] == list(range(first + 1, first + 351))
            assert [letter.payload for letter in letters] == [b"%d" % i for i in range(first, first + 350)]
            assert proc.discard() == 350


def test_two_re_senders_send_each_letter_once(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", on_death="dead-letter")
    mild = Words(1)

    @proc.on_batch("order")
    def orders(batch: upcall.EventBatch) -> None:
        if not mild[0]:
            die()
        for ev in batch:
            notes(int(bytes(ev.payload)))

    def resend() -> None:
        with upcall.connect("box") as remote:
            remote.resend()

    with running(proc):
        queue.send_many("order", [b"%d" % i for i in range(300)])
        assert proc.drain(LONG_S) == []
        mild[0] = 1
        children = [forked(resend) for _ in range(3)]
        assert [ended(pid) for pid in children] == [0, 0, 0]
        assert proc.drain(LONG_S) == []
        assert proc.dead_letters() == []
    assert sorted(note[0] for note in notes.read()) == list(range(300))


def test_killed_re_senders_lose_nothing(notes: Notes) -> None:
    """Each may have had one letter in hand, which is sent again."""
    total = 400
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders", on_death="dead-letter")
    mild, counts = Words(1), Words(total)

    @proc.on_batch("order")
    def orders(batch: upcall.EventBatch) -> None:
        if not mild[0]:
            die()
        for ev in batch:
            counts[int(bytes(ev.payload)[:4])] += 1

    def resend() -> None:
        with upcall.connect("box") as remote:
            for letter in remote.dead_letters()[:30]:
                remote.resend([letter])
            signal.pause()

    with running(proc):
        queue.send_many("order", [b"%4d" % i * (1 + i % 3 * 50) for i in range(total)])
        assert proc.drain(LONG_S) == []
        mild[0] = 1
        kills = 0
        while letters := proc.dead_letters(payload=False):
            pid = forked(resend)
            some = len(letters) - 20
            until(lambda some=some: len(proc.dead_letters(payload=False)) <= max(some, 0), "letters to be sent")
            os.kill(pid, signal.SIGKILL)
            kills += ended(pid) == -signal.SIGKILL
        assert proc.drain(LONG_S) == []
        assert kills > 10
        assert all(counts[i] >= 1 for i in range(total))
        assert sum(counts[i] for i in range(total)) <= total + kills


def test_a_letter_whose_queue_has_no_room_stays(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", on_death="dead-letter", limit=2)
    mild = Words(1)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        if not mild[0]:
            die()
        notes(ev.arg1)
        gate.wait()

    with running(proc):
        for i in range(4):
            queue.send("order", arg1=i)
            assert proc.drain(LONG_S) == []
        mild[0] = 1
        with pytest.raises(MailboxFull, match="'orders' of 'box' is full") as raised:
            proc.resend()
        assert raised.value.sent == 2
        assert [letter.arg1 for letter in proc.dead_letters()] == [2, 3]
        gate.open()
        assert proc.drain(LONG_S) == []
        assert proc.resend() == 2
        assert proc.drain(LONG_S) == []
    assert sorted(note[0] for note in notes.read()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (EventFlag.SPAM_PUBLIC | EventFlag.IPI, "a payload of 100 bytes"),
        (EventFlag.IPI | EventFlag.INDIR | EventFlag.FALLBACK | EventFlag.NOMSG, "queue sends a bit"),
    ],
)
def test_a_letter_that_its_queue_can_carry_no_more_stays(notes: Notes, flags: EventFlag, says: str) -> None:
    """The process was defined otherwise when it was written."""
    proc = poisoned(notes, 2)
    proc.stop(timeout=LONG_S)
    second = Proc("box", vcores=1)
    second.queue("orders", flags=flags)
    second.on("order")(lambda ev: notes("second"))
    with running(second):
        with pytest.raises(FlagError, match=says):
            second.resend([2])
        assert [letter.id for letter in second.dead_letters()] == [1, 2]
    discard("box")


def test_threads_as_vcores_leave_and_keep_letters(notes: Notes) -> None:
    """Letters of a process whose vcores were processes are there for one whose vcores are threads."""
    proc = poisoned(notes)
    proc.stop(timeout=LONG_S)
    second = define(notes, host="thread", vcores=1)
    with running(second):
        assert second.resend() == 3
        assert second.drain(LONG_S) == []
    assert sorted(note[0] for note in notes.read()[3:]) == [0, 1, 2]
    assert not list(inspect.snapshots())


def test_an_unattended_segment_with_letters_is_kept(notes: Notes) -> None:
    proc = poisoned(notes)
    proc.stop(timeout=LONG_S)
    (kept,) = inspect.clean()
    assert (kept.removed, kept.lost) == (False, 0)
    assert kept.why == "3 dead letters stay: upcall dead box shows them, or --discard them"
    with upcall.connect("box") as remote:
        remote.resend([2])
    (kept,) = inspect.clean()
    assert (
        kept.why
        == "1 events wait: start it to handle them, 2 dead letters stay: upcall dead box shows them, or --discard them"
    )
    (removed,) = inspect.clean(discard=True)
    assert (removed.removed, removed.lost) == (True, 3)


# ---- no room for a letter --------------------------------------------------------------------------------------------


def test_without_room_for_a_letter_nothing_is_lost_and_the_worker_goes_on(
    notes: Notes, gate: Gate, tmp_path: Path
) -> None:
    """A worker keeps what it cannot put anywhere; who makes room tells it."""
    size = 200_000
    proc = Proc("box", vcores=2, memory="1 MiB")
    proc.queue("orders")
    ready = Gate()

    @proc.on("keep")
    def keep(ev: upcall.Event) -> None:
        kept.append(ev.payload)

    @proc.on("drop")
    def drop(ev: upcall.Event) -> None:
        kept.clear()

    @proc.on("poison")
    def poison(ev: upcall.Event) -> None:
        notes("poison", ev.redeliveries)
        ready.open(1)
        gate.wait()
        die()

    @proc.on("ping")
    def ping(ev: upcall.Event) -> None:
        notes("ping", ev.vcore)

    kept: list[Any] = []
    content = bytes(i % 253 for i in range(size))
    with log_to(tmp_path / "log") as log, running(proc):
        proc.vcore(1).send("poison", content, private=True)
        ready.wait()
        with contextlib.suppress(MailboxFull):
            while True:
                proc.vcore(0).send("keep", bytes(50_000), private=True)
        gate.open()
        until(lambda: "no room to make <Event 'poison'" in log.read_text(), "no room for the letter")
        assert [note for note in notes.read() if note[0] == "poison"] == [["poison", i] for i in range(4)]
        assert proc.dead_letters() == []
        assert proc.stats()["waiting"] == 1
        # Others are handled meanwhile, and the worker sleeps in between.
        until(lambda: vcores("box")[1].state == "OFFLINE", "its worker to sleep")
        proc.vcore(1).send("ping", private=True)
        until(lambda: ["ping", 1] in notes.read(), "the ping")
        assert proc.dead_letters() == []
        start = time.monotonic()
        proc.vcore(0).send("drop", private=True)
        (letter,) = until(proc.dead_letters, "the letter")
        assert letter.payload == content
        assert proc.drain(LONG_S) == []
        assert time.monotonic() - start < LONG_S
    ready.close()
    leave(proc)


@pytest.mark.parametrize("stop", ["drain", "now"])
def test_an_event_without_room_for_a_letter_outlives_its_worker(
    notes: Notes, gate: Gate, tmp_path: Path, stop: str
) -> None:
    """The stop leaves it in the segment, with as many deaths, unless another worker that leaves has made room; the next
    start makes the letter."""
    size = 200_000
    proc = Proc("box", vcores=2, memory="1 MiB")
    orders = proc.queue("orders", on_death="dead-letter")
    proc.queue("ballast", on_full="raise")
    ready = Gate()

    @proc.on("poison")
    def poison(ev: upcall.Event) -> None:
        ready.open(1)
        gate.wait()
        die()

    @proc.on("keep")
    def keep(ev: upcall.Event) -> None:
        kept.append(ev.payload)

    kept: list[Any] = []
    with log_to(tmp_path / "log") as log, running(proc, stop):
        orders.send("poison", bytes(size))
        ready.wait()
        with contextlib.suppress(MailboxFull):
            while True:
                proc.queue("ballast").send("keep", bytes(50_000))
        gate.open()
        until(lambda: "no room to make <Event 'poison'" in log.read_text(), "no room for the letter")
    ready.close()
    assert left("box") + inspect.snapshot("box").dead == 1
    with running(Proc("box", vcores=1, memory="1 MiB")) as second:
        (letter,) = until(second.dead_letters, "the letter")
        assert (letter.type, letter.deaths, letter.payload) == ("poison", 1, bytes(size))
        assert second.drain(LONG_S) == []
    leave(proc)


# ---- hostile bytes ---------------------------------------------------------------------------------------------------


def test_letters_of_a_scribbled_segment_harm_nobody(notes: Notes, upcall_dir: Path) -> None:
    proc = poisoned(notes)
    proc.stop(timeout=LONG_S)
    rng = random.Random(5)
    with upcall.connect("box") as remote, (upcall_dir / "box" / "segment").open("r+b") as file:
        seg = remote.handle().segment.seg
        whole = os.pread(file.fileno(), seg.arena, 0)
        starts = [mbox_at(seg, dead_mbox(seg)), seg.pages, seg.spans]
        for _ in range(200):
            os.pwrite(file.fileno(), whole, 0)
            for start in starts:
                for _ in range(rng.randrange(6)):
                    at = start + rng.choice([0, 64, rng.randrange(0, 1024, 8)])
                    word = rng.choice([rng.getrandbits(64), rng.randrange(6), 1 | 1 << 32, 2 | 1 << 8, 2**64 - 1])
                    os.pwrite(file.fileno(), word.to_bytes(8, "little"), at)
            assert all(isinstance(letter, DeadLetter) for letter in remote.dead_letters())
            for action in (remote.resend, remote.discard):
                with contextlib.suppress(upcall.UpcallError):
                    action()
    discard("box")
