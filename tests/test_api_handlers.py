"""What handlers get, what they may do, where they run, and how the work spreads over vcores."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import upcall
from procs import LONG_S, Gate, Notes, Words, abandon, log_to, running, until
from procs import vcore_info as vcores
from upcall import EventFlag, EventType, MailboxFull, Proc, inspect
from upcall.host.worker import VCoreHost

F = EventFlag


# Events


def test_an_event_says_all_that_was_sent(notes: Notes) -> None:
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.type, ev.arg1, ev.arg2, ev.arg3, ev.arg4, bytes(ev.payload).decode(), ev.queue, ev.is_bit)
        notes(ev.redeliveries, ev.redelivered, ev.vcore in (0, 1), ev.type_number >= 32)

    with running(proc):
        queue.send("order", b"hello", arg1=1, arg2=2, arg3=3, arg4=4)
    assert notes.read() == [["order", 1, 2, 3, 4, "hello", "orders", False], [0, False, True, True]]


def test_an_event_shows_itself(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    bits = proc.queue("bits", flags=F.NOMSG | F.IPI | F.INDIR | F.FALLBACK)
    proc.on("order")(lambda ev: notes(repr(ev)))
    with running(proc):
        queue.send("order")
        queue.send("order", bytes(600), arg1=1, arg3=9)
        proc.vcore(0).send("order", b"x")
        assert proc.drain(LONG_S) == []
        bits.send("order")
    assert [shown for (shown,) in notes.read()[-1:]] == ["<Event 'order' queue='bits' bit vcore=0>"]
    assert sorted(shown for (shown,) in notes.read()[:-1]) == [
        "<Event 'order' queue='orders' 0 bytes vcore=0>",
        "<Event 'order' queue='orders' arg1=1 arg3=9 600 bytes vcore=0>",
        "<Event 'order' queue=None 1 bytes vcore=0>",
    ]


@pytest.mark.parametrize(
    "field",
    ["type", "type_number", "arg1", "arg2", "arg3", "arg4", "payload", "queue", "vcore", "is_bit", "redeliveries"],
)
def test_an_event_cannot_be_changed(field: str, notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        with pytest.raises(AttributeError):
            setattr(ev, field, 1)
        notes("refused")

    with running(proc):
        queue.send("order", b"x")
    assert notes.read() == [["refused"]]


@pytest.mark.parametrize("size", [1, 88, 89, 100_000])
def test_a_payload_is_read_only_bytes(size: int, notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        view = ev.payload
        notes(view.readonly, view.format, view.ndim, view.nbytes, view == b"p" * size)
        with pytest.raises(TypeError):
            view[0] = 1
        with pytest.raises((BufferError, TypeError)):
            memoryview(ev).cast("B")[0] = 1
        notes("refused")

    with running(proc):
        queue.send("order", b"p" * size)
    assert notes.read() == [[True, "B", 1, size, True], ["refused"]]


def test_no_payload_is_an_empty_view(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(len(ev.payload), bytes(ev.payload) == b"", bool(ev.payload)))
    with running(proc):
        queue.send("order")
    assert notes.read() == [[0, True, False]]


@pytest.mark.parametrize("size", [50, 500, 60_000, 200_000])
def test_a_kept_slice_outlives_its_handler(size: int, notes: Notes) -> None:
    kept: list[memoryview] = []
    proc = Proc("box", vcores=1, memory="2 MiB")
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        if ev.arg1 == 0:
            whole = ev.payload
            kept.append(whole[10:20])
            whole.release()
        elif ev.arg1 == 100:
            notes(bytes(kept[0]).decode())
            kept.clear()

    with running(proc):
        queue.send("order", b"0123456789keep this 0123456789" + bytes(size))
        for _ in range(99):
            queue.send("order", b"!" * (30 + size), arg1=1)
        queue.send("order", arg1=100)
    assert notes.read() == [["keep this "]]


def test_a_block_is_used_again_only_when_its_last_view_is_gone(notes: Notes) -> None:
    kept: list[memoryview] = []
    proc = Proc("box", vcores=1, memory="1 MiB")  # room for 8 blocks of this size
    queue = proc.queue("orders", on_full="raise")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        if ev.arg1 == 1:
            kept.append(ev.payload[:5])
        elif ev.arg1 == 2:
            notes([bytes(view).decode() for view in kept])
            kept.clear()

    with running(proc):
        for i in range(8):
            queue.send("order", b"%05d" % i + bytes(60_000), arg1=1)
        assert proc.drain(LONG_S) == []
        with pytest.raises(MailboxFull):
            queue.send("order", bytes(60_000))
        queue.send("order", arg1=2)
        assert proc.drain(LONG_S) == []
        for _ in range(8):
            queue.send("order", bytes(60_000))
    assert notes.read() == [[[f"{i:05d}" for i in range(8)]]]


def test_an_exception_that_keeps_its_frames_does_not_keep_the_block(notes: Notes) -> None:
    proc = Proc("box", vcores=1, memory="1 MiB")
    queue = proc.queue("orders", on_full="raise")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        view = ev.payload[5:]
        raise KeyError(len(view))

    logging.getLogger("upcall").addHandler(handler := logging.NullHandler())
    with running(proc):
        for _ in range(30):
            queue.send("order", bytes(60_000))
            assert proc.drain(LONG_S) == []
    logging.getLogger("upcall").removeHandler(handler)


def test_a_payload_used_too_late_is_an_error_and_not_somebody_elses_bytes(notes: Notes) -> None:
    kept: list[upcall.Event] = []
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        if not kept:
            kept.append(ev)
            return
        old = kept[0]
        with pytest.raises(ValueError, match="the event is done and its payload released"):
            _ = old.payload
        with pytest.raises(BufferError):
            memoryview(old)
        notes(old.arg1, old.type, repr(old))

    with running(proc):
        queue.send("order", b"first" * 100, arg1=1)
        queue.send("order", b"other" * 100, arg1=2)
    assert notes.read() == [[1, "order", "<Event 'order' queue='orders' arg1=1 500 bytes vcore=0>"]]


def test_a_small_payload_may_be_used_late(notes: Notes) -> None:
    kept: list[upcall.Event] = []
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        kept.append(ev)
        notes(bytes(kept[0].payload).decode())

    with running(proc):
        queue.send("order", b"a" * 88)
        queue.send("order", b"b" * 88)
    assert notes.read() == [["a" * 88]] * 2


# Exceptions and what nobody handles


def test_a_handlers_exception_is_logged_and_counted_and_the_vcore_goes_on(notes: Notes, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1, os.getpid())
        if ev.arg1 % 2:
            raise KeyError(f"mine {ev.arg1}")

    with log_to(tmp_path / "log") as log, running(proc):
        for i in range(6):
            queue.send("order", bytes(200 * i), arg1=i)
        assert proc.drain(LONG_S) == []
        info = vcores("box")[0]
        assert (info.handled, info.errors, info.restarts) == (6, 3, 0)
    assert [i for i, _ in notes.read()] == list(range(6))
    assert len({pid for _, pid in notes.read()}) == 1
    text = log.read_text()
    assert [f"KeyError: 'mine {i}'" in text for i in range(6)] == [False, True] * 3
    assert (
        "handler failed for <Event 'order' queue='orders' arg1=1 200 bytes vcore=0>; the event counts as handled"
        in text
    )


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(), MemoryError()])
def test_no_exception_of_a_handler_ends_its_worker(error: BaseException, notes: Notes, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1, os.getpid())
        if ev.arg1 == 0:
            raise error

    with log_to(tmp_path / "log") as log, running(proc):
        queue.send("order", arg1=0)
        queue.send("order", arg1=1)
    assert len({pid for _, pid in notes.read()}) == 1
    assert [i for i, _ in notes.read()] == [0, 1]
    assert type(error).__name__ in log.read_text()


def test_a_type_without_a_handler_is_logged_once_and_counted(notes: Notes, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1)
    queue, other = proc.queue("orders"), proc.queue("other")
    proc.on("order", queue=other)(lambda ev: notes(ev.queue))
    with log_to(tmp_path / "log") as log, running(proc):
        for _ in range(5):
            queue.send("order", bytes(300))
        queue.send("strange")
        other.send("order")
        assert proc.drain(LONG_S) == []
        assert vcores("box")[0].unhandled == 6
        assert vcores("box")[0].handled == 7
    lines = [line for line in log.read_text().splitlines() if "no handler for" in line]
    assert len(lines) == 2
    assert (
        "no handler for <Event 'order' queue='orders' 300 bytes vcore=0>: such events are counted and dropped"
        in lines[0]
    )
    assert "'strange'" in lines[1]
    assert notes.read() == [["other"]]


def test_a_dropped_events_block_is_given_back(tmp_path: Path) -> None:
    proc = Proc("box", vcores=1, memory="1 MiB")
    queue = proc.queue("orders", on_full="raise")
    with log_to(tmp_path / "log"), running(proc):
        for _ in range(30):
            queue.send("order", bytes(60_000))
            assert proc.drain(LONG_S) == []


# Which handler


def test_a_handler_of_the_queue_comes_before_a_handler_of_the_type(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    first, second = proc.queue("first"), proc.queue("second")
    proc.on("order")(lambda ev: notes("any", ev.queue))
    proc.on("order", queue=second)(lambda ev: notes("second", ev.queue))
    with running(proc):
        first.send("order")
        second.send("order")
        proc.vcore(0).send("order")
    assert sorted(map(str, notes.read())) == sorted(map(str, [["any", "first"], ["second", "second"], ["any", None]]))


def test_a_queues_own_handler_gets_what_has_no_other(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", handler=lambda ev: notes("queue", ev.type))
    other = proc.queue("other")
    proc.on("order")(lambda ev: notes("type", ev.type))
    proc.on("bill", queue=other)(lambda ev: notes("other", ev.type))
    with running(proc):
        for kind in ("order", "bill", "fresh"):
            queue.send(kind)
    assert notes.read() == [["type", "order"], ["queue", "bill"], ["queue", "fresh"]]


def test_the_last_handler_registered_for_a_type_counts(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes("first"))
    proc.on("order")(lambda ev: notes("second"))
    with running(proc):
        queue.send("order")
    assert notes.read() == [["second"]]


def test_on_gives_the_function_back() -> None:
    proc = Proc("box")

    def handler(ev: object) -> None: ...

    def main() -> None: ...

    assert proc.on("order")(handler) is handler
    assert proc.on_batch("bill")(handler) is handler
    assert proc.main(main) is main


# Batches


def batches(notes: Notes, most: int, **options: Any) -> tuple[Proc, upcall.Queue, Gate]:
    """A process whose batch handler notes what it gets, after a first event has held the vcore at the gate."""
    gate = Gate()
    proc = Proc("box", vcores=1, **options)
    queue = proc.queue("orders")
    proc.on("hold")(lambda ev: (notes("hold"), gate.wait()))
    proc.on("single")(lambda ev: notes("single", ev.arg1))

    @proc.on_batch("order", max=most)
    def orders(events: upcall.EventBatch) -> None:
        notes("batch", [ev.arg1 for ev in events], [len(ev.payload) for ev in events])

    return proc, queue, gate


def test_a_batch_has_what_waits_in_order_and_no_more_than_its_maximum(notes: Notes) -> None:
    proc, queue, gate = batches(notes, 8)
    with running(proc):
        queue.send("hold")
        notes.wait(1)
        for i in range(20):
            queue.send("order", arg1=i)
        gate.open()
    got = [note[1] for note in notes.read()[1:]]
    assert got == [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    gate.close()


def test_a_batch_ends_before_an_event_of_another_type(notes: Notes) -> None:
    proc, queue, gate = batches(notes, 100)
    with running(proc):
        queue.send("hold")
        notes.wait(1)
        for i, kind in enumerate(["order", "order", "single", "single", "order", "single", "order"]):
            queue.send(kind, arg1=i)
        gate.open()
    assert [note[:2] for note in notes.read()[1:]] == [
        ["batch", [0, 1]], ["single", 2], ["single", 3], ["batch", [4]], ["single", 5], ["batch", [6]],
    ]  # fmt: skip
    gate.close()


def test_a_batch_of_one_comes_at_once(notes: Notes) -> None:
    proc, queue, gate = batches(notes, 100)
    with running(proc):
        queue.send("order", arg1=5)
        notes.wait(1)
    assert notes.read() == [["batch", [5], [0]]]
    gate.close()


def test_a_batch_with_large_payloads_gives_every_block_back(notes: Notes) -> None:
    proc, queue, gate = batches(notes, 100, memory="1 MiB")
    with running(proc):
        for _ in range(20):
            for i in range(6):
                queue.send("order", bytes(60_000), arg1=i)
            assert proc.drain(LONG_S) == []
    assert sum(len(note[1]) for note in notes.read()) == 120
    assert {length for note in notes.read() for length in note[2]} == {60_000}
    gate.close()


def test_a_batch_that_nobody_looks_at_gives_every_block_back() -> None:
    proc = Proc("box", vcores=1, memory="1 MiB")
    queue = proc.queue("orders", on_full="raise")
    proc.on_batch("order")(lambda events: None)
    with running(proc):
        for _ in range(20):
            for _ in range(6):
                queue.send("order", bytes(60_000))
            assert proc.drain(LONG_S) == []


def test_a_batch_is_a_sequence(notes: Notes) -> None:
    gate = Gate()
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    proc.on("hold")(lambda ev: (notes("hold"), gate.wait()))

    @proc.on_batch("order")
    def orders(events: upcall.EventBatch) -> None:
        notes(len(events), events[0].arg1, events[-1].arg1, [ev.arg1 for ev in events[1:3]], repr(events))
        notes([ev.arg1 for ev in reversed(events)], bytes(events[2].payload[:3]).decode(), events[2] is events[2])
        for index in (5, -6):
            with pytest.raises(IndexError, match=re.escape(f"event {index} of a batch of 5")):
                events[index]
        with pytest.raises(TypeError):
            events["0"]  # type: ignore[call-overload]
        notes("refused")

    with running(proc):
        queue.send("hold")
        notes.wait(1)
        for i in range(5):
            queue.send("order", b"abc" * 100, arg1=i)
        gate.open()
    assert notes.read()[1:] == [
        [5, 0, 4, [1, 2], "<EventBatch of 5 events>"], [[4, 3, 2, 1, 0], "abc", True], ["refused"],
    ]  # fmt: skip
    gate.close()


def test_a_batch_used_too_late_is_an_error_but_its_views_stay(notes: Notes) -> None:
    kept: list[Any] = []
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on_batch("order", max=1)
    def orders(events: upcall.EventBatch) -> None:
        if not kept:
            kept.extend([events, events[0], events[0].payload[:5]])
            return
        batch, event, view = kept
        with pytest.raises(ValueError, match="the batch is done"):
            batch[0]
        with pytest.raises(ValueError, match="the event is done and its payload released"):
            _ = (view.release(), event.payload)[1]
        notes(len(batch), event.arg1)

    with running(proc):
        queue.send("order", b"first" * 100, arg1=7)
        queue.send("order", b"other" * 100)
    assert notes.read() == [[1, 7]]


def test_an_exception_in_a_batch_handler_counts_all_its_events_as_handled(notes: Notes, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on_batch("order")
    def orders(events: upcall.EventBatch) -> None:
        notes(len(events))
        raise KeyError("mine")

    with log_to(tmp_path / "log") as log, running(proc):
        queue.send_many("order", [bytes(i) for i in range(200)])
        assert proc.drain(LONG_S) == []
        info = vcores("box")[0]
        assert info.handled == 200
        assert info.errors == info.batches == len(notes.read())
    assert sum(count for (count,) in notes.read()) == 200
    assert "KeyError: 'mine'" in log.read_text()


def test_a_bit_for_a_batch_handler_is_a_batch_of_one(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", flags=F.NOMSG | F.IPI | F.INDIR | F.FALLBACK)
    proc.on_batch("order")(lambda events: notes(len(events), events[0].is_bit, [ev.type for ev in events]))
    with running(proc):
        queue.send("order")
    assert notes.read() == [[1, True, ["order"]]]


# Contexts


def test_a_thread_handler_is_interrupted_by_an_event_for_vcore_context(notes: Notes) -> None:
    done = Words(1)
    proc = Proc("box", vcores=1)
    slow = proc.queue("slow", flags=F.IPI | F.INDIR | F.FALLBACK | F.THREAD)
    quick = proc.queue("quick", flags=F.IPI | F.INDIR | F.FALLBACK | F.JUSTHANDLEIT)

    @proc.on("slow")
    def in_uthread_context(ev: upcall.Event) -> None:
        notes("begin")
        until(lambda: done[0])
        notes("end")

    @proc.on("quick")
    def in_vcore_context(ev: upcall.Event) -> None:
        notes("quick")
        done[0] = 1

    with running(proc):
        slow.send("slow", bytes(200))
        notes.wait(1)
        quick.send("quick")
    assert notes.read() == [["begin"], ["quick"], ["end"]]
    done.close()


def test_a_thread_queue_handles_everything_in_order(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("slow", flags=F.IPI | F.INDIR | F.FALLBACK | F.THREAD)
    proc.on("slow")(lambda ev: notes(ev.arg1, len(ev.payload)))
    with running(proc):
        for i in range(300):
            queue.send("slow", bytes(i), arg1=i)
    assert notes.read() == [[i, i] for i in range(300)]


def test_a_thread_queue_takes_bits_and_batches_too(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    bits = proc.queue("bits", flags=F.NOMSG | F.IPI | F.INDIR | F.FALLBACK | F.THREAD)
    slow = proc.queue("slow", flags=F.IPI | F.INDIR | F.FALLBACK | F.THREAD)
    proc.on("bit")(lambda ev: notes("bit", ev.is_bit))
    proc.on_batch("batch")(lambda events: notes("batch", len(events)))
    with running(proc):
        bits.send("bit")
        assert proc.drain(LONG_S) == []
        slow.send("batch")
    assert notes.read() == [["bit", True], ["batch", 1]]


def test_a_thread_handlers_exception_is_logged_and_counted(notes: Notes, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("slow", flags=F.IPI | F.INDIR | F.FALLBACK | F.THREAD)

    @proc.on("slow")
    def slow(ev: upcall.Event) -> None:
        notes(ev.arg1)
        raise KeyError("mine")

    with log_to(tmp_path / "log") as log, running(proc):
        queue.send("slow", arg1=1)
        queue.send("slow", arg1=2)
        assert proc.drain(LONG_S) == []
        assert vcores("box")[0].errors == 2
    assert notes.read() == [[1], [2]]
    assert log.read_text().count("KeyError: 'mine'") == 2


def test_a_stop_waits_for_the_thread_handler_in_hand(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("slow", flags=F.IPI | F.INDIR | F.FALLBACK | F.THREAD)
    proc.on("slow")(lambda ev: (notes("begin"), gate.wait(), notes("end")))
    with running(proc):
        queue.send("slow")
        notes.wait(1)
        with pytest.raises(TimeoutError):
            proc.stop("drain", timeout=0.05)
        gate.open()
    assert notes.read() == [["begin"], ["end"]]


def test_a_sigterm_between_the_last_look_and_the_sleep_is_not_slept_over(monkeypatch: pytest.MonkeyPatch) -> None:
    proc = Proc("box", vcores=1)
    proc.queue("slow", flags=F.IPI | F.INDIR | F.FALLBACK | F.THREAD)
    sent = Words(1)
    run_threads = VCoreHost.run_threads

    def run_threads_and_then(host: VCoreHost) -> int:
        found = run_threads(host)
        if not found and not sent[0]:
            sent[0] = 1
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(VCoreHost, "run_threads", run_threads_and_then)
    with running(proc):
        until(lambda: vcores("box")[0].restarts == 1, "the end of the worker")


def test_main_runs_on_every_vcore_and_is_interrupted_by_events(notes: Notes) -> None:
    seen = Words(3)
    proc = Proc("box", vcores=3)
    pids = Words(1)

    @proc.on("go")
    def go(ev: upcall.Event) -> None:
        seen[ev.vcore] = 1

    @proc.main
    def main() -> None:
        mine = [vcore.id for vcore in inspect.snapshot("box").vcores if vcore.pid == os.getpid()]
        notes("begin", *mine)
        until(lambda: seen[mine[0]])
        notes("end", *mine)

    with running(proc), upcall.connect("box") as remote:
        assert sorted(notes.wait(3)) == [["begin", v] for v in range(3)]
        for v in (2, 0, 1):
            remote.vcore(v).send("go", private=True)
            until(lambda v=v: ["end", v] in notes.read(), f"main of vcore {v}")  # type: ignore[misc]
    assert len(notes.read()) == 6
    pids.close()
    seen.close()


def test_events_are_handled_on_top_of_main_one_after_the_other(notes: Notes) -> None:
    handled = Words(2)
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        handled[0] += 1

    @proc.main
    def main() -> None:
        rounds = 0
        while handled[0] < 200:
            rounds += 1
        notes(rounds > 0)

    with running(proc):
        for i in range(200):
            queue.send("order")
            if i % 20 == 0:
                until(lambda i=i: handled[0] > i, f"event {i}")  # type: ignore[misc]
        assert notes.wait(1) == [[True]]
        assert vcores("box")[0].notifs > 0
    handled.close()


def test_a_main_that_fails_is_logged_and_its_vcore_works_on(notes: Notes, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(ev.arg1))

    @proc.main
    def main() -> None:
        raise KeyError("mine")

    with log_to(tmp_path / "log") as log, running(proc):
        until(lambda: "box/vcore 0: main failed" in log.read_text(), "the log")
        queue.send("order", arg1=1)
    assert notes.read() == [[1]]
    assert "KeyError: 'mine'" in log.read_text()


@pytest.mark.parametrize("stop", ["drain", "now"])
def test_a_stop_ends_a_main_that_does_not_return(stop: str, notes: Notes) -> None:
    proc = Proc("box", vcores=2)

    @proc.main
    def main() -> None:
        notes("begin")
        try:
            while True:
                time.sleep(60)
        finally:
            notes("finally")

    with running(proc, stop=stop):
        notes.wait(2)
    assert sorted(notes.read()) == [["begin"]] * 2 + [["finally"]] * 2


def test_two_mains_run_one_after_the_other(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    proc.main(lambda: notes("first"))
    proc.main(lambda: notes("second"))
    with running(proc):
        notes.wait(2)
    assert notes.read() == [["first"], ["second"]]


# Handlers that send


def test_a_handler_may_send_to_its_own_process(notes: Notes) -> None:
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1, len(ev.payload))
        if ev.arg1 < 50:
            queue.send("order", bytes(ev.arg1 * 20), arg1=ev.arg1 + 1)

    with running(proc):
        queue.send("order", arg1=1)
        notes.wait(50)
    assert notes.read() == [[1, 0], *([i, (i - 1) * 20] for i in range(2, 51))]


def test_what_a_handler_sends_during_a_drain_stop_is_handled_too(notes: Notes) -> None:
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1)
        if ev.arg1 < 200:
            queue.send("order", arg1=ev.arg1 + 1)

    with running(proc):
        queue.send("order", arg1=1)
    assert notes.read() == [[i] for i in range(1, 201)]


def test_a_handler_may_send_mail_to_every_vcore(notes: Notes) -> None:
    proc = Proc("box", vcores=3)

    @proc.on("spread")
    def spread(ev: upcall.Event) -> None:
        for v in range(3):
            proc.vcore(v).send("mail", private=True)

    proc.on("mail")(lambda ev: notes(ev.vcore))
    with running(proc):
        proc.vcore(1).send("spread")
        notes.wait(3)
    assert sorted(notes.read()) == [[0], [1], [2]]


@pytest.mark.parametrize("on_full", ["block", "raise"])
def test_a_handler_never_waits_for_room_in_its_own_process(on_full: Any, notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", limit=3, on_full=on_full)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        if ev.payload:
            notes("more")
            return
        with pytest.raises(MailboxFull) as caught:
            queue.send_many("order", [b"x"] * 10)
        notes("full", caught.value.sent)

    with running(proc):
        queue.send("order")
    # The event in hand counts: two more fit.
    assert notes.read() == [["full", 2], ["more"], ["more"]]


def test_main_may_wait_for_room_because_it_lets_events_in(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", limit=3)
    proc.on("order")(lambda ev: notes(ev.arg1))

    @proc.main
    def main() -> None:
        for i in range(50):
            queue.send("order", arg1=i)

    with running(proc):
        notes.wait(50)
    assert notes.read() == [[i] for i in range(50)]


def test_a_handler_may_send_to_another_process(notes: Notes) -> None:
    first, second = Proc("first", vcores=1), Proc("second", vcores=1)
    queue = first.queue("orders")
    second.queue("bills")
    second.on("bill")(lambda ev: notes(ev.arg1, bytes(ev.payload[:3]).decode()))

    @first.on("order")
    def order(ev: upcall.Event) -> None:
        with upcall.connect("second") as remote:
            remote.queue("bills").send("bill", ev.payload, arg1=ev.arg1)

    with running(second), running(first):
        for i in range(10):
            queue.send("order", b"abc" * 100, arg1=i)
    assert notes.read() == [[i, "abc"] for i in range(10)]


# Many vcores


def test_a_long_handler_does_not_hold_back_what_comes_after_it(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders")
    proc.on("long")(lambda ev: (notes("begin"), gate.wait(), notes("end")))
    proc.on("quick")(lambda ev: notes(ev.arg1))
    with running(proc):
        queue.send("long")
        notes.wait(1)
        for i in range(100):
            queue.send("quick", arg1=i)
        assert notes.wait(101) == [["begin"], *([i] for i in range(100))]
        gate.open()
    assert notes.read()[-1] == ["end"]


def test_a_long_handler_does_not_hold_back_what_came_with_it(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders")
    proc.on("long")(lambda ev: (notes("begin"), gate.wait()))
    proc.on("quick")(lambda ev: notes("quick"))
    with running(proc):
        for _ in range(20):
            queue.send("quick")  # short ones first: the queue counts as a fast one
        assert proc.drain(LONG_S) == []
        queue.send("long")
        for _ in range(5):
            queue.send("quick")
        notes.wait(26)
        gate.open()


@pytest.mark.parametrize("count", [2, 4])
def test_a_backlog_spreads_over_all_vcores(count: int, notes: Notes) -> None:
    here = Words(count)
    proc = Proc("box", vcores=count)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        here[ev.vcore] = 1
        until(lambda: all(here.bytes()), "all vcores at work")
        notes(ev.vcore)

    with running(proc):
        for _ in range(count):
            queue.send("order")
        assert sorted(notes.wait(count)) == [[v] for v in range(count)]
    here.close()


def test_a_backlog_that_was_left_spreads_over_all_vcores_of_the_next_start(notes: Notes) -> None:
    here = Words(3)

    def define() -> Proc:
        proc = Proc("box", vcores=3)
        proc.queue("orders")

        @proc.on("order")
        def order(ev: upcall.Event) -> None:
            here[ev.vcore] = 1
            until(lambda: all(here.bytes()), "all vcores at work")
            notes(ev.vcore)

        return proc

    abandon(define())
    with upcall.connect("box") as remote:
        for _ in range(3):
            remote.queue("orders").send("order")
    with running(define()):
        assert sorted(notes.wait(3)) == [[0], [1], [2]]
    here.close()


def test_batches_spread_over_vcores_too(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders")

    @proc.on_batch("order", max=4)
    def orders(events: upcall.EventBatch) -> None:
        notes(len(events))
        gate.wait()

    with running(proc):
        queue.send_many("order", [b"x"] * 200)
        notes.wait(2)
        gate.open()
    assert sum(count for (count,) in notes.read()) == 200


@pytest.mark.parametrize("count", [1, 4])
def test_an_idle_process_uses_no_processor_time(count: int, notes: Notes) -> None:
    def ticks() -> int:
        total = 0
        for pid in [proc._running.pid, *(vcore.pid for vcore in vcores("box").values() if vcore.alive)]:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(stat[11]) + int(stat[12])
        return total

    proc = Proc("box", vcores=count)
    queue = proc.queue("orders")
    slow = proc.queue("slow", flags=F.IPI | F.INDIR | F.FALLBACK | F.THREAD)
    proc.kernel_queue(EventType.ALARM, queue)
    proc.on("order")(lambda ev: notes(1))
    with running(proc):
        for i in range(20):
            (queue, slow)[i % 2].send("order")
            proc.vcore(i % count).send("order", private=True)
        assert proc.drain(LONG_S) == []
        notes.wait(40)
        until(lambda: {v.state for v in vcores("box").values() if v.alive} == {"OFFLINE"}, "all vcores to sleep")
        gc.collect()

        def second_without_a_tick() -> bool:
            before = ticks()
            time.sleep(1)
            return ticks() == before

        # The word says OFFLINE before the thread sleeps: on a loaded machine, the way there may still take a tick.
        until(second_without_a_tick, "a second in which nobody runs")
        assert {v.state for v in vcores("box").values() if v.alive} == {"OFFLINE"}
