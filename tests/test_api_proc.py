"""A process from its definition to its end, as a program sees it."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import re
import signal
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import upcall
from procs import (
    LONG_S,
    Gate,
    Later,
    Notes,
    Words,
    abandon,
    bereave,
    discard,
    ended,
    forked,
    left,
    log_to,
    output,
    program,
    running,
    until,
)
from procs import vcore_info as vcores
from upcall import EventFlag, EventType, FlagError, Proc, VCoreIdError, inspect
from upcall.host.segment import Geometry, folder
from upcall.host.stops import held
from upcall.host.tables import queues
from upcall.kern import const
from upcall.kern.layout import evq_at, mbox_at, vcpd_at

# Definition


@pytest.mark.parametrize(
    "name", ["", ".hidden", "-dash", "a/b", "a b", "x" * 64, "ä", "a\n", "a\0", "..", 5, None, b"a"]
)
def test_a_process_name_that_cannot_be_a_folder_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"process name {name!r}")):
        Proc(name)


@pytest.mark.parametrize("name", ["a", "A_1.b-c", "x" * 63, "0"])
def test_a_definition_creates_nothing(name: str, upcall_dir: Path) -> None:
    before = set(upcall_dir.rglob("*"))
    proc = Proc(name, vcores=2)
    proc.queue("orders")
    proc.on("order")(print)
    assert set(upcall_dir.rglob("*")) == before
    assert repr(proc) == f"<upcall.Proc {name!r} vcores=2>"


@pytest.mark.parametrize(
    ("option", "value", "error", "says"),
    [
        ("vcores", 0, ValueError, "vcores=0 is outside 1..1024"),
        ("vcores", -1, ValueError, "vcores=-1 is outside 1..1024"),
        ("vcores", 1025, ValueError, "vcores=1025 is outside 1..1024"),
        ("vcores", True, TypeError, "vcores=True must be an int, not bool"),
        ("vcores", 2.0, TypeError, "vcores=2.0 must be an int, not float"),
        ("vcores", "2", TypeError, "vcores='2' must be an int, not str"),
        ("cores", 0, ValueError, "cores=0 is outside 1..2"),
        ("cores", 3, ValueError, "cores=3 is outside 1..2"),
        ("cores", 1.5, TypeError, "cores=1.5 must be an int, not float"),
        ("memory", "lots", ValueError, "size 'lots'"),
        ("memory", "12 parsecs", ValueError, "size '12 parsecs'"),
        ("memory", "-1 MiB", ValueError, "size '-1 MiB'"),
        ("memory", None, ValueError, "size None"),
        ("memory", True, ValueError, "size True"),
        ("memory", 1.5, ValueError, "size 1.5"),
        ("host", "fiber", ValueError, "host='fiber' must be one of 'process', 'thread'"),
        ("spin_us", -1, ValueError, "spin_us=-1 is outside 0..10000000"),
        ("spin_us", float("nan"), ValueError, "spin_us=nan is outside"),
        ("spin_us", "1", TypeError, "spin_us='1' must be a number, not str"),
        ("preempt_after_ms", 0, ValueError, "preempt_after_ms=0 is outside 1..3600000"),
        ("preempt_after_ms", True, TypeError, "preempt_after_ms=True must be a number, not bool"),
        ("stop", "later", ValueError, "stop='later' must be one of 'drain', 'now'"),
        ("start_method", "forkserver", ValueError, "start_method='forkserver' must be one of 'fork', 'spawn'"),
    ],
)
def test_a_bad_option_is_refused_by_name_and_value(option: str, value: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        Proc("box", **{"vcores": 2, option: value})


@pytest.mark.parametrize("size", [300 << 20, "300 MiB", "300MiB", "0.3 GB", "314572800", " 300 mib "])
def test_memory_is_a_number_of_bytes_or_a_text_with_a_unit(size: Any) -> None:
    assert 300_000_000 <= Proc("box", memory=size).definition.memory <= 300 << 20


@pytest.mark.parametrize("memory", [0, -1, "1 KiB", 4096])
def test_too_little_memory_is_refused_and_leaves_nothing(memory: Any) -> None:
    with pytest.raises(ValueError, match=r"memory=-?\d+ bytes is too little for 2 vcores: give at least \d+"):
        Proc("box", vcores=2, memory=memory).start()


@pytest.mark.parametrize("name", ["", "x" * 64, "a\nb", "nul\0", "\u200b", 7, None, b"orders"])
def test_a_bad_queue_name_is_refused(name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(f"queue name {name!r}")):
        Proc("box").queue(name)


@pytest.mark.parametrize("name", ["", "x" * 64, "a\nb", "\0", 7, None, b"order", ("a",)])
def test_a_bad_type_name_is_refused(name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(f"event type {name!r}")):
        Proc("box").on(name)


@pytest.mark.parametrize("name", ["größer", "订单", "a b", "x" * 63, "order/created", "*"])
def test_names_of_queues_and_types_are_free_text(name: str, notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue(name)
    proc.on(name)(lambda ev: notes(ev.type, ev.queue))
    with running(proc):
        queue.send(name)
    assert notes.read() == [[name, name]]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"flags": 13}, TypeError, "flags=13 must be EventFlag"),
        ({"flags": "IPI"}, TypeError, "flags='IPI' must be EventFlag"),
        ({"vcore": 2}, VCoreIdError, "vcore 2 of 'box' (it has 2: 0 to 1)"),
        ({"vcore": -1}, VCoreIdError, "vcore -1 of 'box'"),
        ({"vcore": True}, VCoreIdError, "vcore True of 'box'"),
        ({"vcore": "0"}, VCoreIdError, "vcore '0' of 'box'"),
        ({"mailbox": "nowhere"}, ValueError, "mailbox='nowhere' of queue 'orders': define that queue first"),
        ({"mailbox": 5}, ValueError, "mailbox=5 of queue 'orders'"),
        ({"handler": 5}, TypeError, "handler 5 of queue 'orders' must be callable"),
        ({"on_full": "drop"}, ValueError, "on_full='drop' must be one of 'block', 'raise', 'bit'"),
        ({"on_full": []}, ValueError, "on_full=[] must be one of 'block', 'raise', 'bit'"),
        ({"limit": 0}, ValueError, "limit=0 must be an int from 1 to 2**64-1, or None"),
        ({"limit": -3}, ValueError, "limit=-3 must be an int from 1 to 2**64-1, or None"),
        ({"limit": True}, ValueError, "limit=True must be an int from 1 to 2**64-1, or None"),
        ({"limit": 1.5}, ValueError, "limit=1.5 must be an int from 1 to 2**64-1, or None"),
        ({"limit": 1 << 64}, ValueError, f"limit={1 << 64} must be an int from 1 to 2**64-1, or None"),
        ({"limit": 5, "flags": EventFlag.VCORE_PRIVATE}, ValueError, "a limit needs a mailbox of its own"),
    ],
)
def test_a_bad_option_of_a_queue_is_refused(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        Proc("box", vcores=2).queue("orders", **options)


F = EventFlag


@pytest.mark.parametrize(
    ("flags", "mailbox", "says"),
    [
        (F.SPAM_PUBLIC | F.VCORE_PRIVATE, None, "SPAM_PUBLIC with VCORE_PRIVATE"),
        (F.SPAM_PUBLIC, "other", "SPAM_PUBLIC with a mailbox"),
        (F.SPAM_PUBLIC | F.INDIR | F.FALLBACK, None, "SPAM_PUBLIC with INDIR"),
        (F.INDIR | F.FALLBACK | F.VCORE_PRIVATE, None, "INDIR with VCORE_PRIVATE"),
        (F.FALLBACK, None, "FALLBACK without INDIR"),
        (F.NOTHROTTLE, None, "NOTHROTTLE without INDIR"),
        (F.INDIR, None, "INDIR without FALLBACK"),
        (F.JUSTHANDLEIT | F.THREAD, None, "JUSTHANDLEIT with THREAD"),
        (F.VCORE_PRIVATE, "other", "uses a vcore's mailbox, mailbox='other' names another"),
        (F.IPI | F.INDIR | F.FALLBACK, "vcore", "INDIR with mailbox='vcore'"),
        (F(1 << 20), None, "unknown flag bits 0x100000"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags: EventFlag, mailbox: str | None, says: str) -> None:
    proc = Proc("box")
    proc.queue("other")
    with pytest.raises(FlagError, match=re.escape(says)):
        proc.queue("orders", flags=flags, mailbox=mailbox)


def test_a_handler_for_a_queue_that_is_not_defined_is_refused() -> None:
    proc = Proc("box")
    proc.queue("orders")
    with pytest.raises(ValueError, match=r"queue 'bills' is not defined \(defined: orders\)"):
        proc.on("order", queue="bills")


def test_a_handler_must_be_callable() -> None:
    with pytest.raises(TypeError, match=r"handler 5 of 'order' must be callable"):
        Proc("box").on("order")(5)  # type: ignore[type-var]


@pytest.mark.parametrize("most", [0, -1, (1 << 20) + 1, "9", None, True, 1.5])
def test_a_batch_has_a_sensible_maximum(most: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(f"max={most!r}")):
        Proc("box").on_batch("order", max=most)


@pytest.mark.parametrize("kind", ["ALARM", 7, None])
def test_a_kernel_queue_is_for_a_kernel_event(kind: Any) -> None:
    proc = Proc("box")
    with pytest.raises(TypeError, match=re.escape(f"kernel event {kind!r} must be an EventType")):
        proc.kernel_queue(kind, proc.queue("orders"))


def test_a_kernel_queue_must_be_defined() -> None:
    with pytest.raises(ValueError, match=r"queue 'alarms' is not defined \(defined: none\)"):
        Proc("box").kernel_queue(EventType.ALARM, "alarms")


def test_main_must_be_callable() -> None:
    with pytest.raises(TypeError, match="main 'x' must be callable"):
        Proc("box").main("x")  # type: ignore[type-var]


def test_asking_for_a_queue_again_gives_the_same_one() -> None:
    proc = Proc("box", vcores=1)
    orders = proc.queue("orders", limit=3)
    assert proc.queue("orders") is orders
    assert proc.queues == ["orders"]
    assert proc.definition.queues["orders"].limit == 3


def test_a_queue_is_not_defined_again_with_other_options() -> None:
    proc = Proc("box", vcores=1)
    orders = proc.queue("orders", limit=3)
    assert proc.queue("orders", limit=3) is orders
    with pytest.raises(ValueError, match="queue 'orders' of 'box' is defined already, with other options"):
        proc.queue("orders", limit=4)
    assert proc.definition.queues["orders"].limit == 3


def test_only_a_mailbox_of_a_queues_own_is_shared() -> None:
    proc = Proc("box", vcores=1)
    proc.queue("spam", flags=EventFlag.SPAM_PUBLIC)
    proc.queue("orders")
    with pytest.raises(ValueError, match="mailbox='spam' of queue 'more': that queue has no mailbox of its own"):
        proc.queue("more", mailbox="spam")
    with pytest.raises(ValueError, match="limit=3 of queue 'more': a limit needs a mailbox of its own"):
        proc.queue("more", mailbox="orders", limit=3)


def test_the_limits_of_the_readme_can_be_reached(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queues = [proc.queue(f"q{i}") for i in range(1024)]
    for i in range(992):
        proc.on(f"t{i}")(lambda ev: notes(ev.type, ev.queue))
    with pytest.raises(ValueError, match="queue 'more': 'box' has 1024 already, as many as a process can have"):
        proc.queue("more")
    with running(proc):
        queues[1023].send("t991")
        with pytest.raises(upcall.SegmentError, match="no room for event type 't992': 'box' has 992, as many as"):
            queues[0].send("t992")
    assert notes.read() == [["t991", "q1023"]]


@pytest.mark.parametrize("vcores", [1, 100, 512, 1024])
def test_there_are_attach_slots_for_all_vcores_and_as_many_senders(vcores: int) -> None:
    geometry = Geometry.for_memory(vcores, 1 << 30)
    geometry.check()
    assert geometry.max_slots > 3 * vcores


def test_more_types_than_a_segment_holds_is_an_error_that_leaves_nothing() -> None:
    proc = Proc("box", vcores=1)
    for i in range(993):
        proc.on(f"t{i}")(print)
    with pytest.raises(upcall.SegmentError, match="no room for event type 't992': 'box' has 992, as many as"):
        proc.start()


def test_a_definition_with_more_queues_than_the_segment_that_was_left_says_the_way_out() -> None:
    abandon(Proc("box", vcores=1))
    larger = Proc("box", vcores=1)
    for i in range(257):
        larger.queue(f"q{i}")
    with pytest.raises(
        upcall.SegmentError, match=r"no room for queue 'q256': 'box' has 256, .* clean --discard removes it"
    ):
        larger.start()
    discard("box")


@pytest.mark.parametrize(
    "change",
    [
        lambda proc: proc.queue("more", limit=2),
        lambda proc: proc.on("more"),
        lambda proc: proc.on_batch("more"),
        lambda proc: proc.main(print),
        lambda proc: proc.kernel_queue(EventType.ALARM, "orders"),
        lambda proc: proc.start(),
        lambda proc: proc.run(),
    ],
)
def test_nothing_is_defined_or_started_while_it_runs(change: Callable[[Proc], object]) -> None:
    proc = Proc("box", vcores=1)
    proc.queue("orders")
    with running(proc), pytest.raises(RuntimeError, match=r"of 'box': it runs already"):
        change(proc)


# Start and stop


@pytest.mark.parametrize("count", [1, 2, 4])
def test_start_returns_when_every_vcore_has_a_worker(count: int) -> None:
    with running(Proc("box", vcores=count)):
        pids = {vcore.pid for vcore in vcores("box").values() if vcore.alive}
        assert len(pids) == count
        assert not pids & {None, 0, os.getpid()}


@pytest.mark.parametrize(("count", "kind"), [(1, "S"), (2, "M")])
def test_one_vcore_is_a_single_core_process_and_more_a_many_core_one(count: int, kind: str, notes: Notes) -> None:
    proc = Proc("box", vcores=count)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(inspect.snapshot("box").state))
    with running(proc):
        queue.send("order")
        proc.drain(LONG_S)
    assert notes.read() == [[f"RUNNING_{kind}"]]


def test_a_clean_stop_leaves_nothing_behind(upcall_dir: Path) -> None:
    before = set(upcall_dir.iterdir())
    proc = Proc("box", vcores=2).start()
    assert (upcall_dir / "box" / "segment").exists()
    proc.stop(timeout=LONG_S)
    assert set(upcall_dir.iterdir()) == before


def test_with_starts_and_stops_it(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(ev.arg1))
    with proc as started:
        assert started is proc
        for i in range(10):
            queue.send("order", arg1=i)
    assert notes.read() == [[i] for i in range(10)]


def test_a_process_can_be_started_again_after_its_stop(notes: Notes) -> None:
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(ev.arg1))
    for i in range(3):
        with running(proc):
            queue.send("order", arg1=i)
    assert notes.read() == [[0], [1], [2]]


def test_stop_before_start_does_nothing() -> None:
    Proc("box").stop()


@pytest.mark.parametrize(
    "use", [lambda proc: proc.drain(), lambda proc: proc.queue("orders").send("order"), lambda proc: proc.stats()]
)
def test_using_a_process_that_does_not_run_here_says_what_to_do(use: Callable[[Proc], object]) -> None:
    proc = Proc("box")
    proc.queue("orders")
    with pytest.raises(
        RuntimeError, match=r"process 'box' does not run here: start\(\) it, or upcall\.connect\('box'\)"
    ):
        use(proc)


def test_stop_with_an_unknown_manner_is_refused_and_the_process_runs_on() -> None:
    proc = Proc("box", vcores=1)
    with running(proc):
        with pytest.raises(ValueError, match=r"stop='maybe' must be 'drain', 'now' or None"):
            proc.stop("maybe")  # type: ignore[arg-type]
        assert proc.drain(LONG_S) == []


def test_a_second_process_of_a_running_name_is_refused() -> None:
    with running(Proc("box", vcores=1)) as first:
        pid = first._running.pid
        with pytest.raises(upcall.NameInUse, match=rf"process 'box' runs already \(pid {pid}\)"):
            Proc("box", vcores=1).start()
        assert first.drain(LONG_S) == []


def test_of_two_that_start_at_once_one_gets_the_name() -> None:
    ready, answers = Gate(), Words(4)

    def start(i: int) -> None:
        proc = Proc("box", vcores=1)
        ready.wait()
        try:
            proc.start()
        except upcall.NameInUse:
            answers[i] = 2
            return
        answers[i] = 1
        until(lambda: all(answers.bytes()), "the others")
        proc.stop(timeout=LONG_S)

    children = [forked(lambda i=i: start(i)) for i in range(4)]  # type: ignore[misc]
    ready.open(4)
    assert [ended(pid) for pid in children] == [0, 0, 0, 0]
    assert sorted(answers.bytes()) == [1, 2, 2, 2]
    ready.close()


def test_stop_drain_handles_everything_that_waits(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        if ev.arg1 < 2:
            gate.wait()
        notes(ev.arg1)

    with running(proc):
        for i in range(1000):
            queue.send("order", arg1=i)
        with pytest.raises(TimeoutError):
            proc.stop("drain", timeout=0)
        gate.open(2)
    assert sorted(notes.read()) == [[i] for i in range(1000)]


def test_a_stop_that_is_asked_for_again_and_again_kills_nobody(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: (gate.wait(), notes(ev.arg1)))
    with running(proc):
        for i in range(10):
            queue.send("order", arg1=i)
        for _ in range(200):
            with pytest.raises(TimeoutError):
                proc.stop("drain", timeout=0)
        gate.open()
    assert notes.read() == [[i] for i in range(10)]


def test_stop_now_leaves_what_waits_and_the_next_start_adopts_it(notes: Notes, gate: Gate) -> None:
    def define() -> tuple[Proc, upcall.Queue]:
        proc = Proc("box", vcores=1)
        queue = proc.queue("orders")

        @proc.on("order")
        def order(ev: upcall.Event) -> None:
            notes(ev.arg1, bytes(ev.payload[:3]).decode(), len(ev.payload))
            gate.wait()

        return proc, queue

    proc, queue = define()
    with running(proc, stop="now"):
        for i in range(5):
            queue.send("order", b"abc" * 100 * i, arg1=i)
        notes.wait(1)
        with pytest.raises(TimeoutError, match=r"process 'box' \(pid \d+\) still stops after 0 s"):
            proc.stop("now", timeout=0)
        gate.open()
    assert notes.read() == [[0, "", 0]]
    assert left("box") == 4
    gate.open()
    again, queue = define()
    with running(again):
        queue.send("order", b"new", arg1=5)
    assert notes.read() == [[0, "", 0], *([i, "abc", 300 * i] for i in range(1, 5)), [5, "new", 3]]


def test_what_waits_is_adopted_by_more_vcores_than_before(notes: Notes) -> None:
    def define(count: int) -> tuple[Proc, upcall.Queue]:
        proc = Proc("box", vcores=count)
        queue = proc.queue("orders")
        proc.on("order")(lambda ev: notes(ev.arg1))
        return proc, queue

    abandon(define(1)[0])
    with upcall.connect("box") as remote:
        for i in range(100):
            remote.queue("orders").send("order", arg1=i)
    second, queue = define(4)
    with running(second):
        queue.send("order", arg1=100)
    assert sorted(notes.read()) == [[i] for i in range(101)]


def test_what_waits_is_adopted_with_types_and_queues_matched_by_name(notes: Notes) -> None:
    first = Proc("box", vcores=1)
    for name in ("a", "b"):
        first.queue(name)
        first.on(name)(print)
    abandon(first)
    with upcall.connect("box") as remote:
        for name in ("a", "b"):
            remote.queue(name).send(name, name.encode())
    second = Proc("box", vcores=1)
    for name in ("new", "b", "a"):
        second.queue(name)
        second.on(name)(lambda ev: notes(ev.queue, ev.type, bytes(ev.payload).decode()))
    with running(second):
        pass
    assert sorted(notes.read()) == [["a", "a", "a"], ["b", "b", "b"]]


def test_a_definition_that_cannot_fit_what_is_left_says_both_numbers() -> None:
    first = Proc("box", vcores=1)
    first.queue("orders")
    first.on("order")(print)
    abandon(first)
    with upcall.connect("box") as remote:
        remote.queue("orders").send("order")
    with pytest.raises(upcall.SegmentError, match=r"vcores=17, but the segment that 'box' left has room for 16"):
        Proc("box", vcores=17).start()
    assert left("box") == 1
    discard("box")


def test_drain_returns_when_everything_sent_has_been_handled(notes: Notes) -> None:
    proc = Proc("box", vcores=3)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(ev.arg1))
    with running(proc):
        for round_ in range(20):
            for i in range(30):
                queue.send("order", arg1=i)
            assert proc.drain(LONG_S) == []
            assert len(notes.read()) == 30 * (round_ + 1)


def test_drain_in_a_handler_is_refused_and_in_main_it_waits_for_handlers(notes: Notes) -> None:
    """In a handler it waited for that handler's own event."""
    proc = Proc("box", vcores=2)
    plain = proc.queue("plain")
    thread = proc.queue("thread", flags=upcall.flags.WORK_QUEUE | EventFlag.THREAD)

    @proc.on("try")
    def try_it(ev: upcall.Event) -> None:
        try:
            proc.drain()
        except RuntimeError as error:
            notes(ev.queue, str(error))

    @proc.on("note")
    def note(ev: upcall.Event) -> None:
        notes("noted", ev.arg1)

    @proc.main
    def main() -> None:
        for i in range(10):
            plain.send("note", arg1=i)
        notes("main", proc.drain(LONG_S))

    with running(proc):
        notes.wait(22)
        plain.send("try")
        thread.send("try")
        proc.drain(LONG_S)
    told = notes.read()
    refused = "drain() of 'box' in one of its own handlers would wait for the event of that handler"
    assert sorted(who for who, what in told if str(what).startswith(refused)) == ["plain", "thread"]
    assert [what for who, what in told if who == "main"] == [[], []]
    assert len(told) == 24


def test_drain_of_an_idle_process_returns_at_once() -> None:
    with running(Proc("box", vcores=2)) as proc:
        assert proc.drain(0.0) == []


@pytest.mark.parametrize("call", ["drain", "stop"])
def test_a_timeout_that_is_no_number_is_refused(call: str) -> None:
    with (
        running(Proc("box", vcores=1)) as proc,
        pytest.raises(TypeError, match="timeout='soon' must be a number, not str"),
    ):
        getattr(proc, call)(timeout="soon")


def test_drain_gives_up_after_its_time_and_says_what_waits(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(1)
        gate.wait()

    with running(proc):
        queue.send("order")
        notes.wait(1)
        with pytest.raises(TimeoutError, match=r"'box' still has events in queue 'orders' after 0\.01 s"):
            proc.drain(0.01)
        gate.open()
        assert proc.drain(LONG_S) == []


def test_drain_waits_for_a_bit_whose_vcore_has_cleared_check_bits_and_not_taken_it_yet(
    notes: Notes, gate: Gate
) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    bits = proc.queue("bits", flags=upcall.flags.WORK_QUEUE | EventFlag.NOMSG)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(1)
        gate.wait()

    with running(proc):
        queue.send("order")
        notes.wait(1)
        bits.send("order")
        segment = proc.handle().segment
        number = next(number for number, name in queues(segment).items() if name == "bits")
        box = segment.u32(evq_at(segment.seg, number) + const.EVQ_MBOX) - 1
        segment.put_u32(mbox_at(segment.seg, box) + const.MB_CHECK_BITS, 0)  # as if the vcore were at it
        with pytest.raises(TimeoutError, match="queue 'bits'"):
            proc.drain(0.01)
        segment.put_u32(mbox_at(segment.seg, box) + const.MB_CHECK_BITS, 1)
        gate.open()
        assert proc.drain(LONG_S) == []
        assert len(notes.read()) == 2


def test_drain_waits_for_a_bit_in_the_hand_of_a_dead_host_that_is_just_being_settled() -> None:
    """Whoever settles it says first that nobody hosts the vcore, and then sets the bit again."""
    with running(Proc("box", vcores=2)) as proc:
        segment = proc.handle().segment
        v = segment.geometry.max_vcores - 1
        assert v not in {id for id, vcore in vcores("box").items() if vcore.alive}
        at = vcpd_at(segment.seg, v) + const.VCPD_BIT
        segment.put_u64(at, 1)
        with pytest.raises(TimeoutError, match=f"'box' still has events in the hands of vcore {v} after"):
            proc.drain(0.01)
        segment.put_u64(at, 0)
        assert proc.drain(LONG_S) == []


def test_drain_does_not_wait_for_what_is_sent_after_the_call(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1)
        gate.wait()
        queue.send("order", arg1=ev.arg1 + 1)

    with running(proc, stop="now"):
        queue.send("order")
        for i in range(10):
            notes.wait(i + 1)
            gate.open(1)
        drained = threading.Thread(target=proc.drain, args=(LONG_S,))
        drained.start()
        gate.open(1_000_000)
        drained.join(LONG_S)
        assert not drained.is_alive()
    discard("box")


def test_drain_names_vcores_whose_private_mail_nobody_hosts(notes: Notes, gate: Gate) -> None:
    def define(count: int) -> Proc:
        proc = Proc("box", vcores=count)
        proc.on("hold")(lambda ev: (notes("hold"), gate.wait()))
        proc.on("mail")(lambda ev: notes("mail", ev.vcore))
        return proc

    first = define(2)
    with running(first, stop="now"):
        first.vcore(1).send("hold", private=True)
        notes.wait(1)
        first.vcore(1).send("mail", private=True)
        with pytest.raises(TimeoutError):
            first.stop("now", timeout=0)
        gate.open()
    assert notes.read() == [["hold"]]
    with running(define(1)) as second:
        assert second.drain(LONG_S) == [1]
        with pytest.raises(VCoreIdError, match=r"vcore 1 of 'box' \(it has 1: 0 to 0\)"):
            second.vcore(1)
    assert notes.read() == [["hold"]]
    with running(define(2)) as third:
        assert third.drain(LONG_S) == []
    assert notes.read() == [["hold"], ["mail", 1]]


def test_at_most_cores_vcores_are_woken_for_a_backlog(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=4, cores=2)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: (notes(ev.vcore), gate.wait()))
    with running(proc):
        until(lambda: {vcore.state for vcore in vcores("box").values()} == {"OFFLINE"}, "all vcores to sleep")
        for i in range(2):
            queue.send("order")
            notes.wait(i + 1)
        for _ in range(10):
            queue.send("order")
        assert sorted(vcore.state for vcore in vcores("box").values()) == ["OFFLINE", "OFFLINE", "ONLINE", "ONLINE"]
        assert len(notes.read()) == 2
        gate.open()
    assert len(notes.read()) == 12


# Death of workers


def test_an_event_whose_handler_killed_its_worker_is_handled_again(notes: Notes, tmp_path: Path) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1, ev.redeliveries, ev.redelivered)
        if ev.arg1 == 3 and not ev.redelivered:
            os.kill(os.getpid(), signal.SIGKILL)

    with log_to(tmp_path / "log") as log, running(proc):
        for i in range(6):
            queue.send("order", arg1=i)
        assert proc.drain(LONG_S) == []
        assert vcores("box")[0].restarts == 1
    handled = notes.read()
    assert handled == [
        [0, 0, False],
        [1, 0, False],
        [2, 0, False],
        [3, 0, False],
        [3, 1, True],
        [4, 0, False],
        [5, 0, False],
    ]
    assert re.search(r"box/vcore 0: worker ended \(signal 9 \(SIGKILL\)\) .* 1 event\(s\)", log.read_text())


def test_killing_workers_while_events_flow_loses_none(notes: Notes) -> None:
    total, kills = 3000, 6
    counts = Words(4 * total)
    proc = Proc("box", vcores=4)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        counts[ev.vcore * total + ev.arg1] += 1

    with running(proc):
        victims: set[int] = set()
        for i in range(total):
            queue.send("order", arg1=i)
            if i % (total // kills) == total // kills // 2:
                until(
                    lambda: any(v.alive and v.pid and v.pid not in victims for v in vcores("box").values()),
                    "a living worker",
                )
                alive = [v for v in vcores("box").values() if v.alive and v.pid and v.pid not in victims]
                victim = alive[i % len(alive)].pid
                victims.add(victim)
                os.kill(victim, signal.SIGKILL)
        assert proc.drain(LONG_S) == []
        until(lambda: sum(v.restarts for v in vcores("box").values()) == kills, "restarts")
    handled = [sum(counts[v * total + i] for v in range(4)) for i in range(total)]
    assert [i for i, times in enumerate(handled) if times == 0] == []
    assert sum(handled) <= total + kills


def test_a_killed_worker_is_replaced_and_works_on(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(os.getpid()))
    with running(proc):
        queue.send("order")
        assert proc.drain(LONG_S) == []
        ((first,),) = notes.read()
        os.kill(first, signal.SIGKILL)
        queue.send("order")
        assert proc.drain(LONG_S) == []
        assert notes.read()[1][0] != first


def test_killing_the_supervisor_ends_its_workers() -> None:
    for _ in range(30):
        proc = Proc("box", vcores=3, on_supervisor_death="stop").start()
        bereave(proc)
        until(lambda: not any(vcore.alive for vcore in vcores("box").values()), "the end of the workers")
        discard("box")


def test_what_was_sent_after_the_supervisors_death_is_handled_by_the_next(notes: Notes) -> None:
    def define() -> Proc:
        proc = Proc("box", vcores=2)
        proc.queue("orders")
        proc.on("order")(lambda ev: notes(ev.arg1))
        return proc

    abandon(define())
    with upcall.connect("box") as remote:
        for i in range(10):
            remote.queue("orders").send("order", arg1=i)
    with running(define()):
        pass
    assert sorted(notes.read()) == [[i] for i in range(10)]


# run()

INGEST = """
    import os, signal, sys, time
    import upcall

    proc = upcall.Proc("box", vcores=2, stop=sys.argv[1])
    orders = proc.queue("orders")

    @proc.on("order")
    def order(ev):
        os.write(1, b"begin %d\\n" % ev.arg1)
        while ev.arg1 == 1 and not os.path.exists(sys.argv[2]):
            time.sleep(0.001)
        os.write(1, b"end %d\\n" % ev.arg1)

    if __name__ == "__main__":
        proc.run()
        print("returned", flush=True)
"""


def _connect() -> upcall.Remote | None:
    try:
        found = upcall.connect("box")
    except upcall.UpcallError:
        return None
    if found.stats()["state"] in ("NEW", "CREATED") or "orders" not in found.queues:
        found.close()
        return None
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_ends_at_a_signal_when_everything_is_handled(number: signal.Signals, tmp_path: Path) -> None:
    door = tmp_path / "door"
    with program(tmp_path, INGEST, "drain", door) as process:
        with until(_connect, "the process") as remote:
            orders = remote.queue("orders")
            for i in (1, 2, 3, 4):
                orders.send("order", arg1=i)
            until(lambda: any(v.handled for v in vcores("box").values()) or orders, "a start")
        process.send_signal(number)
        door.touch()
        said = output(process)
        assert process.returncode == 0, said
    assert sorted(said.split("\n")) == sorted(
        ["", *(f"{word} {i}" for i in (1, 2, 3, 4) for word in ("begin", "end")), "returned"]
    )


def test_run_that_stops_now_finishes_what_is_in_hand_and_leaves_the_rest(tmp_path: Path) -> None:
    door = tmp_path / "door"
    with program(tmp_path, INGEST.replace("vcores=2", "vcores=1"), "now", door) as process:
        with until(_connect, "the process") as remote:
            for i in (1, 2, 3):
                remote.queue("orders").send("order", arg1=i)
        assert process.stdout is not None
        assert process.stdout.readline() == "begin 1\n"
        process.send_signal(signal.SIGTERM)
        until(lambda: inspect.dump("box")["procinfo"]["stop"] == "now", "the stop")
        door.touch()
        said = output(process)
        assert process.returncode == 0
    assert [line for line in said.splitlines() if "mailbox" not in line] == ["end 1", "returned"]
    assert left("box") == 2
    discard("box")


def test_a_second_signal_ends_run_at_once(tmp_path: Path) -> None:
    with program(tmp_path, INGEST.replace("vcores=2", "vcores=1"), "drain", tmp_path / "never") as process:
        with until(_connect, "the process") as remote:
            for i in (1, 2):
                remote.queue("orders").send("order", arg1=i)
        assert process.stdout is not None
        assert process.stdout.readline() == "begin 1\n"
        process.send_signal(signal.SIGINT)
        until(lambda: inspect.dump("box")["procinfo"]["stop"] == "drain", "the stop")
        process.send_signal(signal.SIGINT)
        assert "returned" in output(process)
    assert left("box") == 2
    discard("box")


def test_ctrl_c_for_the_whole_group_drains_too(tmp_path: Path) -> None:
    door = tmp_path / "door"
    with program(tmp_path, INGEST, "drain", door) as process:
        with until(_connect, "the process") as remote:
            for i in (1, 2, 3):
                remote.queue("orders").send("order", arg1=i)
        os.killpg(process.pid, signal.SIGINT)
        door.touch()
        said = output(process)
        assert process.returncode == 0, said
    assert said.count("end") == 3


@pytest.mark.parametrize("host", ["process", "thread"])
def test_run_gives_the_signal_handlers_back(host: str, tmp_path: Path) -> None:
    source = """
        import os, signal, sys, threading, upcall
        proc = upcall.Proc("box", vcores=1, host=sys.argv[1])
        runs_in = os.getpid()

        def ways():
            number = signal.set_wakeup_fd(-1)
            return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), number, signal.pthread_sigmask(0, ())

        before = ways()

        @proc.main
        def main():
            os.kill(runs_in, signal.SIGTERM)

        proc.run()
        assert before == ways(), (before, ways())
        print("same")
    """
    with program(tmp_path, source, host) as process:
        assert output(process) == "same\n"


CTRL_C = """
    import os, sys, time, upcall
    proc = upcall.Proc("box", vcores=2, host=sys.argv[2], start_method=sys.argv[3])
    proc.queue("orders")
    if __name__ == "__main__":
        try:
            os.write(1, b"go\\n")
            if sys.argv[1] == "run":
                proc.run()
            else:
                proc.start()
                time.sleep(60)
        except KeyboardInterrupt:
            pass
        proc.stop()
"""


@pytest.mark.parametrize(("host", "method"), [("process", "fork"), ("process", "spawn"), ("thread", "fork")])
@pytest.mark.parametrize("how", ["start", "run"])
def test_ctrl_c_at_any_moment_leaves_no_process_no_segment_and_no_traceback(
    how: str, host: str, method: str, tmp_path: Path
) -> None:
    """In the foreground it comes to the program, its supervisor and its workers alike, whatever they are doing."""
    rng = random.Random(f"{how} {host} {method}")
    for _ in range(12):
        with program(tmp_path, CTRL_C, how, host, method) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            time.sleep(rng.choice((0.002, 0.02, 0.2)) * rng.random())
            os.killpg(process.pid, signal.SIGINT)
            assert output(process) == ""
            # Python itself ends so, whoever caught it, if it came in an `exec`, such as that of an imported dataclass.
            assert process.returncode in (0, -signal.SIGINT)
        until(lambda: not (folder() / "box").exists(), "its end")


def test_ctrl_c_waits_for_the_import_of_what_spawns_workers(tmp_path: Path) -> None:
    """In a callback of the import system it was printed and forgotten, and the process ran on."""
    source = """
        import os, signal, sys, upcall
        proc = upcall.Proc("box", vcores=1, start_method="spawn")

        class Interrupted:
            passed = False

            def find_spec(self, name, path=None, target=None):
                if name == "upcall.host.spawn":
                    os.kill(os.getpid(), signal.SIGINT)
                    self.passed = True

        if __name__ == "__main__":
            finder = Interrupted()
            sys.meta_path.insert(0, finder)
            try:
                proc.run()
            except KeyboardInterrupt:
                print(finder.passed)
    """
    with program(tmp_path, source) as process:
        assert output(process) == "True\n"


def test_a_start_that_is_interrupted_ends_what_it_has_started(tmp_path: Path) -> None:
    """The supervisor came to tell that all runs, and died on a pipe that nobody read any more."""
    source = """
        import os, signal, threading, upcall
        from upcall import inspect
        proc = upcall.Proc("box", vcores=1)

        @proc.main
        def main():
            while True:
                signal.pause()

        interrupted = 0
        for i in range(40):
            timer = threading.Timer(i / 4000, os.kill, (os.getpid(), signal.SIGINT))
            try:
                timer.start()
                proc.start()
                signal.pause()
            except KeyboardInterrupt:
                interrupted += proc._running is None
                proc.stop()
            timer.join()
            assert list(inspect.snapshots()) == []
        print(interrupted)
    """
    with program(tmp_path, source) as process:
        assert int(output(process)) > 0


@pytest.mark.parametrize("how", ["runs", "is refused", "is killed"])
def test_a_start_does_not_wait_for_a_child_that_another_thread_forks_meanwhile(
    how: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That child has a copy of the pipe through which the supervisor says how its start went."""
    children: list[int] = []

    @contextlib.contextmanager
    def held_while_another_forks() -> Iterator[None]:
        children.append(forked(gate.wait))
        with held():
            yield

    monkeypatch.setattr("upcall.host.background.held", held_while_another_forks)
    if how == "runs":
        with running(Proc("box", vcores=1)):
            pass
    elif how == "is refused":
        with Proc("box", vcores=1), pytest.raises(upcall.NameInUse):
            Proc("box", vcores=1).start()
    else:
        monkeypatch.setattr("upcall.host.background.supervise", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(upcall.UpcallError, match="SIGKILL"):
            Proc("box", vcores=1).start()
    gate.open()
    assert [ended(child) for child in children] == [0] * len(children)


def test_the_thread_that_starts_a_process_may_end(tmp_path: Path) -> None:
    """The supervisor asked to end with its starter, and the kernel took the thread for it."""
    proc = Proc("box", vcores=1)
    proc.queue("orders")
    thread = threading.Thread(target=proc.start)
    thread.start()
    thread.join(LONG_S)
    with upcall.connect("box") as remote:
        assert proc.drain(LONG_S) == []
        assert remote.stats()["attended"]
    proc.stop(timeout=LONG_S)


def test_run_is_for_the_main_thread() -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            Proc("box", vcores=1).run()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(LONG_S)
    assert re.search(r"Proc.run of 'box' handles signals: call it in the main thread, or use start\(\)", str(errors[0]))


def test_a_program_that_dies_takes_its_background_process_with_it(tmp_path: Path) -> None:
    source = """
        import os, signal, upcall
        proc = upcall.Proc("box", vcores=2)
        proc.queue("orders")
        proc.start()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with program(tmp_path, source) as process:
        output(process)
        assert process.returncode == -signal.SIGKILL
    until(lambda: not (folder() / "box").exists(), "its end")


# Threads as vcores


@pytest.mark.parametrize("count", [1, 3])
def test_threads_as_vcores_handle_everything_once(count: int) -> None:
    proc = Proc("box", vcores=count, host="thread")
    queue = proc.queue("orders")
    handled: list[tuple[int, int]] = []
    proc.on("order")(lambda ev: handled.append((ev.arg1, len(ev.payload))))
    with running(proc), upcall.connect("box") as remote:
        for i in range(300):
            (queue, remote.queue("orders"))[i % 2].send("order", bytes(i), arg1=i)
        assert proc.drain(LONG_S) == []
        assert {vcore.pid for vcore in vcores("box").values() if vcore.alive} == {os.getpid()}
    assert sorted(handled) == [(i, i) for i in range(300)]


def test_threads_as_vcores_get_events_from_other_processes() -> None:
    proc = Proc("box", vcores=2, host="thread")
    proc.queue("orders")
    handled: list[int] = []
    proc.on("order")(lambda ev: handled.append(ev.arg1))

    def send() -> None:
        with upcall.connect("box") as remote:
            for i in range(500):
                remote.queue("orders").send("order", arg1=i)

    child_may_send = Gate()
    pid = forked(lambda: (child_may_send.wait(), send()))
    with running(proc):
        child_may_send.open()
        assert ended(pid) == 0
    assert sorted(handled) == list(range(500))
    child_may_send.close()


def test_threads_as_vcores_have_private_mail_and_a_main_each() -> None:
    proc = Proc("box", vcores=3, host="thread")
    handled: list[tuple[int, int]] = []
    mains: list[int] = []
    proc.on("mail")(lambda ev: handled.append((ev.arg1, ev.vcore)))
    proc.main(lambda: mains.append(threading.get_ident()))
    with running(proc):
        for i in range(30):
            proc.vcore(i % 3).send("mail", arg1=i, private=True)
        until(lambda: len(mains) == 3)
    assert sorted(handled) == [(i, i % 3) for i in range(30)]
    assert len(set(mains)) == 3


def test_a_stop_of_threads_gives_everything_back(upcall_dir: Path) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd")), threading.active_count(), set(upcall_dir.iterdir())
    for _ in range(5):
        proc = Proc("box", vcores=2, host="thread")
        queue = proc.queue("orders")
        proc.on("order")(lambda ev: None)
        with running(proc):
            queue.send("order", bytes(1000))
        del proc, queue
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count(), set(upcall_dir.iterdir())) == before


@pytest.mark.parametrize("count", [0, 1])
def test_a_start_that_gets_too_few_threads_ends_those_that_it_has(
    count: int, upcall_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They waited at a barrier for those that did not come, and the start for their end."""
    start = threading.Thread.start

    def start_some(thread: threading.Thread) -> None:
        if thread.name == f"box/vcore {count}":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    proc = Proc("box", vcores=3, host="thread")
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Later(proc.start).result()
    assert not (upcall_dir / "box").exists()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("box/")] == []


def test_a_stop_of_threads_gives_up_after_its_time_and_can_be_asked_again() -> None:
    proc = Proc("box", vcores=1, host="thread")
    queue = proc.queue("orders")
    began, go = threading.Event(), threading.Event()

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        began.set()
        go.wait(LONG_S)

    with running(proc):
        queue.send("order")
        assert began.wait(LONG_S)
        with pytest.raises(TimeoutError, match=r"box/vcore 0 still stops after 0 s"):
            proc.stop("drain", timeout=0)
        go.set()


def test_stop_now_of_threads_leaves_what_waits_for_worker_processes(notes: Notes) -> None:
    began, go = threading.Event(), threading.Event()

    def define(host: Any, handler: Callable[[upcall.Event], object]) -> tuple[Proc, upcall.Queue]:
        proc = Proc("box", vcores=1, host=host)
        queue = proc.queue("orders")
        proc.on("order")(handler)
        return proc, queue

    proc, queue = define("thread", lambda ev: (began.set(), go.wait(LONG_S)))
    with running(proc, stop="now"):
        for i in range(5):
            queue.send("order", arg1=i)
        assert began.wait(LONG_S)
        with pytest.raises(TimeoutError):
            proc.stop("now", timeout=0)
        go.set()
    assert left("box") == 4
    with running(define("process", lambda ev: notes(ev.arg1))[0]):
        pass
    assert notes.read() == [[1], [2], [3], [4]]


def test_a_second_start_of_a_name_that_runs_in_threads_is_refused() -> None:
    with running(Proc("box", vcores=1, host="thread")) as proc:
        for host in ("thread", "process"):
            with pytest.raises(upcall.NameInUse, match=rf"process 'box' runs already \(pid {os.getpid()}\)"):
                Proc("box", vcores=1, host=host).start()  # type: ignore[arg-type]
        assert proc.drain(LONG_S) == []


@pytest.mark.parametrize("stop", ["drain", "now"])
def test_a_second_signal_ends_run_with_threads_at_once(stop: str, tmp_path: Path) -> None:
    source = INGEST.replace("vcores=2", 'vcores=1, host="thread"')
    with program(tmp_path, source, stop, tmp_path / "never") as process:
        with until(_connect, "the process") as remote:
            for i in (1, 2):
                remote.queue("orders").send("order", arg1=i)
        assert process.stdout is not None
        assert process.stdout.readline() == "begin 1\n"
        process.send_signal(signal.SIGTERM)
        until(lambda: inspect.dump("box")["procinfo"]["stop"] == stop, "the stop")
        process.send_signal(signal.SIGTERM)
        said = output(process)
        assert process.returncode == 0, said
        assert said == "box: stopped at once, with a handler still running\nreturned\n"
    assert left("box") == 2
    discard("box")


def test_run_with_threads_ends_at_a_signal(tmp_path: Path) -> None:
    door = tmp_path / "door"
    with program(tmp_path, INGEST.replace("vcores=2", 'vcores=2, host="thread"'), "drain", door) as process:
        with until(_connect, "the process") as remote:
            for i in (1, 2, 3):
                remote.queue("orders").send("order", arg1=i)
        process.send_signal(signal.SIGTERM)
        door.touch()
        said = output(process)
        assert process.returncode == 0, said
    assert said.count("end") == 3
    assert said.endswith("returned\n")


# Workers that start afresh

SPAWN = """
    import os, sys
    import upcall

    proc = upcall.Proc("box", vcores=2, start_method="spawn")
    orders = proc.queue("orders")
    imported_in = os.getpid()

    @proc.on("order")
    def order(ev):
        with open(sys.argv[1], "a") as file:
            file.write(f"{ev.arg1} {len(ev.payload)} {imported_in == os.getpid()} {__name__}\\n")

    if __name__ == "__main__":
        with proc:
            for i in range(20):
                orders.send("order", bytes(10 * i), arg1=i)
            proc.drain(20)
        print("done")
"""


def test_spawned_workers_import_the_program_anew(tmp_path: Path) -> None:
    with program(tmp_path, SPAWN, tmp_path / "out") as process:
        said = output(process)
        assert (said, process.returncode) == ("done\n", 0)
    lines = sorted((tmp_path / "out").read_text().splitlines(), key=lambda line: int(line.split()[0]))
    assert lines == [f"{i} {10 * i} True __mp_main__" for i in range(20)]


def test_spawned_workers_find_a_proc_of_an_imported_module(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(textwrap.dedent(SPAWN).split("if __name__")[0])
    source = """
        import service
        with service.proc:
            service.orders.send("order", b"abc", arg1=7)
        print("done")
    """
    with program(tmp_path, source, tmp_path / "out") as process:
        assert output(process) == "done\n"
    assert (tmp_path / "out").read_text() == "7 3 True service\n"


def test_a_spawned_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    source = SPAWN.replace(
        "        with open",
        "        if not ev.redelivered and ev.arg1 == 3:\n            os.kill(os.getpid(), 9)\n        with open",
    )
    with program(tmp_path, source, tmp_path / "out") as process:
        assert output(process).endswith("done\n")
    got = sorted(int(line.split()[0]) for line in (tmp_path / "out").read_text().splitlines())
    assert got == list(range(20))


def test_a_spawned_worker_ends_as_a_forked_one(tmp_path: Path) -> None:
    """No at-exit handler runs, no thread of the program's is waited for, and what was printed is there."""
    source = """
        import atexit, sys, threading
        import upcall

        proc = upcall.Proc("box", vcores=2, start_method=sys.argv[1])
        orders = proc.queue("orders")
        atexit.register(print, "at exit", flush=True)

        @proc.main
        def main():
            threading.Thread(target=threading.Event().wait).start()

        @proc.on("order")
        def order(ev):
            print("order")

        if __name__ == "__main__":
            with proc:
                orders.send("order")
    """
    for method in ("fork", "spawn"):
        with program(tmp_path, source, method) as process:
            assert output(process) == "order\nat exit\n"


def test_a_handler_that_a_spawned_worker_cannot_import_is_named() -> None:
    proc = Proc("box", vcores=1, start_method="spawn")

    @proc.on("order")
    def inner(ev: upcall.Event) -> None: ...

    with pytest.raises(ValueError, match=r"handler of 'order' of 'box', .*inner, is defined inside a function"):
        proc.start()


def test_a_proc_that_a_spawned_worker_cannot_find_is_refused() -> None:
    proc = Proc("box", vcores=1, start_method="spawn")
    proc.on("order")(print)
    with pytest.raises(ValueError, match="process 'box' is not a global of any module"):
        proc.start()


@pytest.mark.parametrize("way", ["signal.SIG_IGN", "wait_for_any"])
def test_a_program_with_ways_of_its_own_with_its_children(tmp_path: Path, way: str) -> None:
    """It ignores how they end, or waits for any: ours end all the same, and how is known. Workers have the program's way."""
    source = f"""
        import contextlib, os, signal, sys, upcall

        def wait_for_any(*args):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)

        before = {way}
        signal.signal(signal.SIGCHLD, before)
        proc = upcall.Proc("box", vcores=1)
        queue = proc.queue("in")

        @proc.on("call")
        def call(ev):
            if not ev.redelivered:
                os._exit(3)
            print(signal.getsignal(signal.SIGCHLD) == before, flush=True)

        with proc:
            queue.send("call")
            proc.drain()
        with upcall.Executor(1) as pool:
            try:
                pool.submit(os._exit, 4).result()
            except upcall.WorkerDied as error:
                print(error.exitcode)
            print(pool.submit(abs, -5).result())
        print(signal.getsignal(signal.SIGCHLD) == before)
    """
    with program(tmp_path, source) as process:
        said = output(process)
        assert process.returncode == 0, said
    assert [line for line in said.splitlines() if "exit code" not in line] == ["True", "4", "5", "True"]
    assert "worker ended (exit code 3)" in said
