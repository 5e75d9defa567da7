"""Sending to a process, as its clients see it: payloads, flags, errors, back-pressure, threads, forks, order."""

from __future__ import annotations

import array
import gc
import mmap
import os
import re
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import upcall
from procs import LONG_S, Gate, Notes, Words, abandon, discard, ended, forked, left, output, program, running, until
from procs import vcore_info as vcores
from upcall import EventFlag, EventType, FlagError, MailboxFull, NoSuchQueue, NoSuchType, Proc, VCoreIdError, inspect
from upcall.host.segment import Geometry
from upcall.host.slots import SlotTable

F = EventFlag
SIZES = [0, 1, 88, 89, 512, 513, 32768, 32769, 1 << 20, 8 << 20]
"""Both sides of each border: inline, the classes of small blocks, large blocks of one span and of many."""


def some_bytes(size: int) -> bytes:
    """Bytes that differ from place to place."""
    return (b"%09d|" % size + bytes(range(256)) * (size // 256 + 1))[:size]


def waits(name: str) -> int:
    """How many sends have had to wait for room."""
    return sum(slot.waits for slot in inspect.snapshot(name).slots)


def wakes(name: str) -> int:
    """How many cores senders have given."""
    return sum(slot.wakes for slot in inspect.snapshot(name).slots)


def echo(notes: Notes, vcores: int = 1, **options: Any) -> tuple[Proc, upcall.Queue]:
    """A process that notes what it gets."""
    proc = Proc("box", vcores=vcores)
    queue = proc.queue("orders", **options)
    proc.on("order")(
        lambda ev: notes(ev.arg1, ev.arg2, ev.arg3, ev.arg4, len(ev.payload), zlib.crc32(ev.payload), ev.is_bit)
    )
    return proc, queue


def held(notes: Notes, gate: Gate, **options: Any) -> tuple[Proc, upcall.Queue]:
    """A process whose one vcore waits at the gate in each handler."""
    proc = Proc("box", vcores=1, memory=options.pop("memory", "256 MiB"))
    queue = proc.queue("orders", **options)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1, len(ev.payload), ev.is_bit)
        gate.wait()

    return proc, queue


# Payloads and arguments


@pytest.mark.parametrize("size", SIZES)
def test_a_payload_of_any_size_arrives_whole(size: int, notes: Notes) -> None:
    payload = some_bytes(size)
    proc, queue = echo(notes)
    with running(proc), upcall.connect("box") as remote:
        queue.send("order", payload)
        remote.queue("orders").send("order", payload)
    assert notes.read() == [[0, 0, 0, 0, size, zlib.crc32(payload), False]] * 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "kind",
    [
        bytearray,
        memoryview,
        lambda data: memoryview(bytearray(b"12345" + data))[5:],
        lambda data: array.array("B", data),
        lambda data: memoryview(data).cast("b"),
    ],
    ids=["bytearray", "memoryview", "slice", "array", "signed"],
)
def test_any_bytes_like_object_is_a_payload(kind: Callable[[bytes], Any], size: int, notes: Notes) -> None:
    payload = some_bytes(size)
    proc, queue = echo(notes)
    with running(proc):
        queue.send("order", kind(payload))
        assert queue.send_many("order", [kind(payload), kind(payload)]) == 2
    assert notes.read() == [[0, 0, 0, 0, size, zlib.crc32(payload), False]] * 3


def test_items_wider_than_a_byte_are_sent_as_their_bytes(notes: Notes) -> None:
    numbers = array.array("d", [1.5, -2.5, 1e300] * 100)
    proc, queue = echo(notes)
    with running(proc):
        queue.send("order", numbers)
        queue.send("order", memoryview(numbers))
    assert notes.read() == [[0, 0, 0, 0, 2400, zlib.crc32(numbers.tobytes()), False]] * 2


def test_a_mapped_file_is_a_payload(notes: Notes, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(some_bytes(100_000))
    proc, queue = echo(notes)
    with open(tmp_path / "data", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with running(proc):
        queue.send("order", mapped)
    mapped.close()
    assert notes.read() == [[0, 0, 0, 0, 100_000, zlib.crc32(some_bytes(100_000)), False]]


@pytest.mark.parametrize("payload", ["text", 5, None, [1], object(), memoryview(b"abcdef")[::2]])
def test_what_is_not_bytes_like_is_refused(payload: Any, notes: Notes) -> None:
    proc, queue = echo(notes)
    with running(proc):
        with pytest.raises((TypeError, BufferError)):
            queue.send("order", payload)
        with pytest.raises((TypeError, BufferError)):
            queue.send_many("order", [payload])
        with pytest.raises((TypeError, BufferError)):
            proc.vcore(0).send("order", payload)
        queue.send("order", b"good")
    assert [note[4] for note in notes.read()] == [4]


def test_a_payload_may_be_changed_once_it_is_sent(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        gate.wait()
        notes(bytes(ev.payload[:4]).decode())

    payload = bytearray(b"here" * 1000)
    with running(proc):
        queue.send("order", payload)
        payload[:4] = b"gone"
        gate.open()
    assert notes.read() == [["here"]]


def test_the_largest_arguments_arrive(notes: Notes) -> None:
    proc, queue = echo(notes)
    most = [(1 << 16) - 1, (1 << 32) - 1, (1 << 64) - 1, (1 << 64) - 1]
    with running(proc), upcall.connect("box") as remote:
        queue.send("order", arg1=most[0], arg2=most[1], arg3=most[2], arg4=most[3])
        remote.vcore(0).send("order", b"x" * 200, arg1=most[0], arg2=most[1], arg3=most[2], arg4=most[3])
    assert [note[:4] for note in notes.read()] == [most, most]


@pytest.mark.parametrize("name", ["arg1", "arg2", "arg3", "arg4"])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_argument_that_does_not_fit_is_refused(name: str, sign: int, notes: Notes) -> None:
    value = {"arg1": 1 << 16, "arg2": 1 << 32, "arg3": 1 << 64, "arg4": 1 << 64}[name] if sign > 0 else -1
    proc, queue = echo(notes)
    proc.kernel_queue(EventType.ALARM, queue)
    with running(proc):
        with pytest.raises(OverflowError):
            queue.send("order", **{name: value})
        with pytest.raises(OverflowError):
            proc.vcore(0).send("order", **{name: value})
        with pytest.raises(OverflowError):
            proc.kernel_event(EventType.ALARM, **{name: value})
    assert notes.read() == []


@pytest.mark.parametrize("value", ["1", 1.0, None, b"1"])
def test_an_argument_that_is_no_int_is_refused(value: Any, notes: Notes) -> None:
    proc, queue = echo(notes)
    with running(proc):
        for name in ("arg1", "arg2", "arg3", "arg4"):
            with pytest.raises(TypeError):
                queue.send("order", **{name: value})
    assert notes.read() == []


def test_a_send_wakes_a_process_that_waits_before_it_makes_its_message(notes: Notes) -> None:
    """Seen by one whose message is never made: the vcore finds nothing, and sleeps again."""
    proc, _ = echo(notes)
    with running(proc), upcall.connect("box") as remote:
        until(lambda: inspect.snapshot("box").state == "WAITING")
        before = wakes("box")
        with pytest.raises(OverflowError):
            remote.queue("orders").send("order", arg1=1 << 16)
        assert wakes("box") == before + 1
        until(lambda: inspect.snapshot("box").state == "WAITING")
    assert notes.read() == []


def test_an_argument_past_its_limit_names_the_argument_and_the_value(notes: Notes) -> None:
    proc, queue = echo(notes)
    with running(proc):
        for name, bits in (("arg1", 16), ("arg2", 32), ("arg3", 64), ("arg4", 64)):
            for value in (1 << bits, 1 << 80, -1):
                with pytest.raises(OverflowError, match=f"{name}={value} does not fit {bits} bits"):
                    queue.send("order", **{name: value})
            with pytest.raises(TypeError, match=f"{name}=1.5 must be an int, not float"):
                queue.send("order", **{name: 1.5})
    assert notes.read() == []


@pytest.mark.parametrize("on_full", ["block", "raise", "bit"])
def test_a_payload_that_never_fits_is_refused_and_nobody_waits_for_room(on_full: Any, notes: Notes) -> None:
    proc = Proc("box", vcores=1, memory="8 MiB")
    queue = proc.queue("orders", on_full=on_full)
    proc.on("order")(lambda ev: notes(len(ev.payload)))
    with running(proc):
        for send in (queue.send, lambda kind, payload: queue.send_many(kind, [payload]), proc.vcore(0).send):
            for kind in (bytes, bytearray):
                with pytest.raises(
                    ValueError, match=f"payload of {(4 << 20) + 1} bytes: 'box' takes at most {4 << 20}"
                ):
                    send("order", kind((4 << 20) + 1))
        queue.send("order", bytes(4 << 20))
    assert notes.read() == [[4 << 20]]


# send_many


def test_send_many_sends_each_payload_in_order_and_says_how_many(notes: Notes) -> None:
    proc, queue = echo(notes)
    payloads = [some_bytes(size % 300) for size in range(1000)]
    with running(proc), upcall.connect("box") as remote:
        assert remote.queue("orders").send_many("order", payloads) == 1000
        assert queue.send_many("order", (b"x" for _ in range(3))) == 3
        assert queue.send_many("order", []) == 0
    assert [note[4:6] for note in notes.read()] == [
        *([len(payload), zlib.crc32(payload)] for payload in payloads), *[[1, zlib.crc32(b"x")]] * 3,
    ]  # fmt: skip


def test_send_many_of_a_generator_that_raises_has_sent_what_came_before(notes: Notes) -> None:
    def payloads() -> Iterator[bytes]:
        yield from [b"x"] * 100
        raise KeyError("mine")

    proc, queue = echo(notes)
    with running(proc):
        with pytest.raises(KeyError, match="mine"):
            queue.send_many("order", payloads())
        assert proc.drain(LONG_S) == []
        assert len(notes.read()) == 100


def test_send_many_of_a_generator_that_sends_by_itself_mixes_nothing_up(notes: Notes) -> None:
    proc, queue = echo(notes)

    def payloads() -> Iterator[bytes]:
        for i in range(200):
            queue.send("order", b"inner" * 40, arg1=i)
            yield b"outer"

    with running(proc):
        assert queue.send_many("order", payloads()) == 200
    inner, outer = (zlib.crc32(b"inner" * 40), zlib.crc32(b"outer"))
    assert [(note[0], note[5]) for note in notes.read()] == [
        (j, c) for i in range(200) for j, c in ((i, inner), (0, outer))
    ]


@pytest.mark.parametrize("payloads", [5, None, object()])
def test_send_many_of_no_iterable_is_refused(payloads: Any, notes: Notes) -> None:
    proc, queue = echo(notes)
    with running(proc), pytest.raises(TypeError):
        queue.send_many("order", payloads)


# Names


def test_connecting_to_a_process_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(upcall.NoSuchProcess, match=r"no process 'bax' in .* \(there: none\)"):
        upcall.connect("bax")
    with running(Proc("box", vcores=1)), pytest.raises(upcall.NoSuchProcess, match=r"no process 'bax' .*there: box"):
        upcall.connect("bax")


@pytest.mark.parametrize("name", ["", "../box", "a/b", "x" * 64, None, 5])
def test_connecting_to_what_cannot_be_a_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"process name {name!r}")):
        upcall.connect(name)


def test_an_unknown_queue_is_an_error_that_lists_the_known(notes: Notes) -> None:
    proc, _ = echo(notes)
    proc.queue("bills")
    with running(proc), upcall.connect("box") as remote:
        with pytest.raises(NoSuchQueue, match=re.escape("process 'box' has no queue 'ordars' (it has: bills, orders)")):
            remote.queue("ordars")
        assert remote.queues == ["bills", "orders"]


@pytest.mark.parametrize(
    "send",
    [
        lambda remote, kind: remote.queue("orders").send(kind),
        lambda remote, kind: remote.queue("orders").send_many(kind, [b"x"]),
        lambda remote, kind: remote.vcore(0).send(kind),
    ],
    ids=["send", "send_many", "vcore"],
)
def test_an_unknown_type_is_an_error_that_lists_the_known(send: Callable[..., object], notes: Notes) -> None:
    proc, _ = echo(notes)
    proc.on("bill")(print)
    with (
        running(proc),
        upcall.connect("box") as remote,
        pytest.raises(NoSuchType, match=re.escape("process 'box' knows no event type 'ordr' (it knows: bill, order)")),
    ):
        send(remote, "ordr")


@pytest.mark.parametrize("kind", [99, 7, True, 7.0, 7 + 0j, None, b"order", 1.5, ["order"], ("order",)])
def test_a_type_is_a_text_or_a_kernel_type(kind: Any, notes: Notes) -> None:
    """7 was taken for EventType.ALARM, which equals it."""
    proc, queue = echo(notes)
    proc.on(EventType.ALARM)(lambda ev: notes(ev.type))
    says = re.escape(f"event type {kind!r} must be a str or an EventType, not {type(kind).__name__}")
    with running(proc):
        with pytest.raises(TypeError, match=says):
            queue.send(kind)
        with pytest.raises(TypeError, match=says):
            queue.send_many(kind, [b""])
        with pytest.raises(TypeError, match=says):
            proc.vcore(0).send(kind)
    assert notes.read() == []


def test_a_kernel_type_is_sent_like_any_other(notes: Notes) -> None:
    proc, queue = echo(notes)
    proc.on(EventType.ALARM)(lambda ev: notes(ev.type, ev.type_number, ev.queue))
    with running(proc):
        queue.send(EventType.ALARM)
    assert notes.read() == [["ALARM", 7, "orders"]]


def test_the_owner_registers_a_type_at_its_first_use_and_others_can_use_it_then(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", handler=lambda ev: notes(ev.type))
    with running(proc), upcall.connect("box") as remote:
        orders = remote.queue("orders")
        with pytest.raises(NoSuchType):
            orders.send("fresh")
        queue.send("fresh")
        orders.send("fresh")
    assert notes.read() == [["fresh"], ["fresh"]]


@pytest.mark.parametrize("vcoreid", [2, -1, 1024, 1 << 40])
def test_a_vcore_that_the_process_does_not_have_is_refused(vcoreid: int, notes: Notes) -> None:
    proc, queue = echo(notes, vcores=2)
    says = re.escape(f"vcore {vcoreid} of 'box' (it has 2: 0 to 1)")
    with running(proc), upcall.connect("box") as remote:
        with pytest.raises(VCoreIdError, match=says):
            remote.vcore(vcoreid)
        with pytest.raises(VCoreIdError, match=says):
            queue.send("order", vcore=vcoreid)
    assert notes.read() == []


@pytest.mark.parametrize("vcoreid", ["0", 1.0, True, [0]])
def test_a_vcore_id_is_an_int(vcoreid: Any, notes: Notes) -> None:
    proc, queue = echo(notes, vcores=2)
    with running(proc):
        with pytest.raises(TypeError, match=re.escape(f"vcore {vcoreid!r} must be an int")):
            proc.vcore(vcoreid)
        with pytest.raises(TypeError, match=re.escape(f"vcore {vcoreid!r} must be an int")):
            queue.send("order", vcore=vcoreid)


# Flags


def who(notes: Notes, **options: Any) -> tuple[Proc, upcall.Queue]:
    """A process with four vcores that notes which of them took an event."""
    proc = Proc("box", vcores=4)
    queue = proc.queue("orders", **options)
    proc.on("order")(lambda ev: notes(ev.arg1, ev.vcore))
    return proc, queue


@pytest.mark.parametrize("flags", [F.VCORE_PRIVATE, F.VCORE_PRIVATE | F.IPI])
def test_a_private_queue_goes_to_its_own_vcore(flags: EventFlag, notes: Notes) -> None:
    proc, queue = who(notes, flags=flags, vcore=2)
    with running(proc):
        for i in range(50):
            queue.send("order", arg1=i)
    assert notes.read() == [[i, 2] for i in range(50)]


def test_appro_goes_to_the_vcore_that_the_sender_proposes(notes: Notes) -> None:
    proc, queue = who(notes, flags=F.VCORE_PRIVATE | F.IPI | F.VCORE_APPRO, vcore=1)
    with running(proc):
        for i in range(40):
            queue.send("order", arg1=i, vcore=i % 4)
        queue.send("order", arg1=40)
    assert sorted(notes.read()) == [*([i, i % 4] for i in range(40)), [40, 1]]


def test_without_appro_a_proposal_counts_for_nothing(notes: Notes) -> None:
    proc, queue = who(notes, flags=F.VCORE_PRIVATE | F.IPI, vcore=1)
    with running(proc):
        queue.send("order", vcore=3)
    assert notes.read() == [[0, 1]]


@pytest.mark.parametrize("flags", [F.ROUNDROBIN, F.ROUNDROBIN | F.VCORE_APPRO])
def test_roundrobin_takes_the_vcores_in_turn_whatever_is_proposed(flags: EventFlag, notes: Notes) -> None:
    proc, queue = who(notes, flags=F.VCORE_PRIVATE | F.IPI | flags)
    with running(proc):
        for i in range(40):
            queue.send("order", arg1=i, vcore=0)
    took = [vcore for _, vcore in sorted(notes.read())]
    assert took == [(took[0] + i) % 4 for i in range(40)]


def test_private_mail_is_handled_by_its_vcore_and_by_no_other(notes: Notes) -> None:
    proc, _ = who(notes)
    with running(proc), upcall.connect("box") as remote:
        for i in range(100):
            remote.vcore(i % 4).send("order", arg1=i, private=True)
    assert sorted(notes.read()) == [[i, i % 4] for i in range(100)]


def test_private_mail_waits_for_its_vcore_however_idle_the_others_are(notes: Notes, gate: Gate) -> None:
    proc, _queue = who(notes)
    proc.on("hold")(lambda ev: (notes("hold"), gate.wait()))
    with running(proc), upcall.connect("box") as remote:
        remote.vcore(1).send("hold", private=True)
        notes.wait(1)
        remote.vcore(1).send("order", arg1=1, private=True)
        for _i in range(50):
            remote.vcore(0).send("order", arg1=2, private=True)
        notes.wait(51)
        assert [1, 1] not in notes.read()
        gate.open()
        assert proc.drain(LONG_S) == []
        assert notes.read()[-1] == [1, 1]


def test_public_mail_of_a_parked_vcore_is_handled(notes: Notes) -> None:
    proc, _ = who(notes)
    with running(proc), upcall.connect("box") as remote:
        for i in range(100):
            remote.vcore(i % 4).send("order", b"x" * i, arg1=i)
            if i % 10 == 0:
                assert proc.drain(LONG_S) == []
    assert sorted(i for i, _ in notes.read()) == list(range(100))


@pytest.mark.parametrize("flags", [F.SPAM_PUBLIC, F.SPAM_PUBLIC | F.IPI, F.SPAM_PUBLIC | F.VCORE_MUST_RUN])
def test_a_spammed_event_is_handled_by_somebody(flags: EventFlag, notes: Notes) -> None:
    proc, queue = who(notes, flags=flags, vcore=1)
    with running(proc):
        for i in range(50):
            queue.send("order", b"small", arg1=i)
            if i % 5 == 0:
                assert proc.drain(LONG_S) == []
    assert sorted({i for i, _ in notes.read()}) == list(range(50))


def test_a_spammed_event_carries_what_fits_its_message_and_no_more(notes: Notes) -> None:
    proc = Proc("box", vcores=2)
    queue = proc.queue("orders", flags=F.SPAM_PUBLIC)
    proc.on("order")(lambda ev: notes(len(ev.payload)))
    with running(proc):
        queue.send("order", bytes(88))
        with pytest.raises(FlagError, match=r"a payload of 89 bytes in a .*SPAM_PUBLIC.* queue \(at most 88\)"):
            queue.send("order", bytes(89))
        with pytest.raises(FlagError):
            queue.send_many("order", [bytes(1000)])
    assert {length for (length,) in notes.read()} == {88}


@pytest.mark.parametrize(
    "flags", [F.NOMSG | F.IPI | F.INDIR | F.FALLBACK, F.NOMSG | F.VCORE_PRIVATE | F.IPI, F.NOMSG | F.SPAM_PUBLIC]
)
def test_bits_coalesce_and_none_is_lost(flags: EventFlag, notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("orders", flags=flags)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.is_bit, len(ev.payload), ev.arg1, ev.queue)
        gate.wait()

    with running(proc):
        queue.send("order")
        notes.wait(1)
        for _ in range(100):
            queue.send("order")
        gate.open()
        assert proc.drain(LONG_S) == []
        assert [note[:3] for note in notes.read()] == [[True, 0, 0]] * 2


@pytest.mark.parametrize("more", [{"payload": b"x"}, {"arg1": 1}, {"arg2": 1}, {"arg3": 1}, {"arg4": 1}])
def test_a_bit_carries_nothing(more: dict[str, Any], notes: Notes) -> None:
    proc, queue = echo(notes, flags=F.NOMSG | F.IPI | F.INDIR | F.FALLBACK)
    says = re.escape("NOMSG: 2> queue sends a bit: it carries no payload and no arguments")
    with running(proc), pytest.raises(FlagError, match=says):
        queue.send("order", **more)
    assert notes.read() == []


@pytest.mark.parametrize(
    "extra", [F(0), F.NOTHROTTLE, F.VCORE_MUST_RUN, F.ROUNDROBIN, F.VCORE_APPRO, F.JUSTHANDLEIT, F.THREAD]
)
@pytest.mark.parametrize("base", [F.INDIR | F.FALLBACK, F.INDIR | F.FALLBACK | F.IPI], ids=["quiet", "ipi"])
@pytest.mark.parametrize("count", [1, 3])
def test_every_flag_of_an_indirect_queue_delivers_everything_once(
    count: int, base: EventFlag, extra: EventFlag, notes: Notes
) -> None:
    proc, queue = echo(notes, vcores=count, flags=base | extra)
    with running(proc):
        for i in range(200):
            queue.send("order", bytes(i), arg1=i)
            if i % 40 == 0:
                assert proc.drain(LONG_S) == []
    assert sorted(note[0] for note in notes.read()) == list(range(200))


@pytest.mark.parametrize("flags", [F(0), F.IPI, F.IPI | F.VCORE_MUST_RUN, F.ROUNDROBIN | F.IPI])
def test_a_queue_without_indirection_that_shares_a_vcores_mailbox_delivers(flags: EventFlag, notes: Notes) -> None:
    proc, queue = echo(notes, vcores=2, flags=flags, mailbox="vcore")
    with running(proc):
        for i in range(50):
            queue.send("order", arg1=i)
            proc.vcore(i % 2).send("order", arg1=1000, private=True)  # what wakes a vcore that nobody interrupts
    assert sorted(note[0] for note in notes.read() if note[0] < 1000) == list(range(50))


def test_two_queues_may_share_a_mailbox_and_its_order(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    first = proc.queue("first")
    second = proc.queue("second", mailbox=first)
    proc.on("order")(lambda ev: notes(ev.queue, ev.arg1))
    with running(proc):
        for i in range(50):
            (first, second)[i % 2].send("order", arg1=i)
    assert notes.read() == [[("first", "second")[i % 2], i] for i in range(50)]


def test_a_queue_that_shares_a_mailbox_shares_its_limit(notes: Notes, gate: Gate) -> None:
    proc, first = held(notes, gate, on_full="raise", limit=2)
    second = proc.queue("second", mailbox=first, on_full="raise")
    third = proc.queue("third", mailbox=second, on_full="raise")
    with running(proc):
        first.send("order")
        third.send("order")
        for queue in (first, second, third):
            with pytest.raises(MailboxFull, match=rf"queue '{queue.name}' of 'box' is full \(limit=2\)"):
                queue.send("order")
        gate.open()


# Kernel events and signals


def test_a_kernel_event_goes_to_the_queue_registered_for_it(notes: Notes) -> None:
    proc = Proc("box", vcores=1)
    queue = proc.queue("alarms")
    proc.kernel_queue(EventType.ALARM, queue)
    proc.on(EventType.ALARM)(
        lambda ev: notes(
            ev.type, ev.type_number, ev.queue, ev.arg1, ev.arg2, ev.arg3, ev.arg4, bytes(ev.payload).decode()
        )
    )
    with running(proc), upcall.connect("box") as remote:
        assert remote.kernel_event(EventType.ALARM, b"ring", arg1=1, arg2=2, arg3=3, arg4=4) is True
        assert proc.kernel_event(EventType.ALARM) is True
    assert notes.read() == [["ALARM", 7, "alarms", 1, 2, 3, 4, "ring"], ["ALARM", 7, "alarms", 0, 0, 0, 0, ""]]


def test_a_kernel_event_that_nobody_registered_for_is_dropped_and_says_so(notes: Notes) -> None:
    proc, _ = echo(notes)
    with running(proc), upcall.connect("box") as remote:
        assert remote.kernel_event(EventType.ALARM) is False
        assert remote.signal(10) is False


def test_a_signal_arrives_as_an_event_with_its_number(notes: Notes) -> None:
    proc, queue = echo(notes)
    proc.kernel_queue(EventType.POSIX_SIGNAL, queue)
    proc.on(EventType.POSIX_SIGNAL)(lambda ev: notes(ev.type, ev.arg1))
    with running(proc), upcall.connect("box") as remote:
        assert remote.signal(signal.SIGUSR1) is True
        assert proc.signal(64) is True
    assert notes.read() == [["POSIX_SIGNAL", signal.SIGUSR1], ["POSIX_SIGNAL", 64]]


@pytest.mark.parametrize("number", [0, 65, -1, "9", None, True, 9.0])
def test_a_number_that_is_no_signal_is_refused(number: Any) -> None:
    says = re.escape(f"signal number {number!r} is outside 1..64")
    with running(Proc("box", vcores=1)) as proc, pytest.raises(ValueError, match=says):
        proc.signal(number)


def test_a_kernel_event_is_of_a_kernel_type_and_small() -> None:
    with running(Proc("box", vcores=1)) as proc:
        with pytest.raises(TypeError, match="kernel event type 'ALARM' must be an EventType"):
            proc.kernel_event("ALARM")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="payload of 89 bytes: a kernel event carries at most 88"):
            proc.kernel_event(EventType.ALARM, bytes(89))


# Back-pressure


def test_a_full_queue_that_raises_says_so_and_recovers(notes: Notes, gate: Gate) -> None:
    proc, queue = held(notes, gate, on_full="raise", limit=3)
    with running(proc):
        for i in range(3):
            queue.send("order", arg1=i)
        with pytest.raises(MailboxFull, match=r"queue 'orders' of 'box' is full \(limit=3\): let it drain") as caught:
            queue.send("order", arg1=99)
        assert caught.value.sent == 0
        gate.open(3)
        assert proc.drain(LONG_S) == []
        queue.send("order", arg1=3)
        gate.open(1)
    assert [i for i, *_ in notes.read()] == [0, 1, 2, 3]


def test_mailbox_full_says_how_many_of_many_went(notes: Notes, gate: Gate) -> None:
    proc, queue = held(notes, gate, on_full="raise", limit=5)
    with running(proc):
        with pytest.raises(MailboxFull) as caught:
            queue.send_many("order", [bytes(i) for i in range(9)])
        assert caught.value.sent == 5
        gate.open()
    assert [length for _, length, _ in notes.read()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("many", [False, True], ids=["send", "send_many"])
def test_a_sender_of_a_full_queue_waits_until_there_is_room(many: bool, notes: Notes, gate: Gate) -> None:
    proc, _ = held(notes, gate, limit=4)
    with running(proc), upcall.connect("box") as remote:
        orders, sent = remote.queue("orders"), []

        def send() -> None:
            if many:
                sent.append(orders.send_many("order", [bytes(i) for i in range(20)]))
            else:
                for i in range(20):
                    orders.send("order", bytes(i))
                    sent.append(i)

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: waits("box"), "the sender to wait")
        assert len(sent) == (0 if many else 4)
        for i in range(20):
            gate.open(1)
            notes.wait(i + 1)
        sender.join(LONG_S)
        assert not sender.is_alive()
        gate.open()
        assert len(sent) == (1 if many else 20)
    assert [length for _, length, _ in notes.read()] == list(range(20))


def test_ctrl_c_ends_a_send_that_waits_and_nothing_is_held_back(notes: Notes, gate: Gate, tmp_path: Path) -> None:
    source = """
        import upcall
        with upcall.connect("box") as remote:
            orders = remote.queue("orders")
            try:
                while True:
                    orders.send("order", arg1=1)
            except KeyboardInterrupt:
                print("interrupted")
    """
    proc, queue = held(notes, gate, limit=4)
    with running(proc), program(tmp_path, source) as process:
        until(lambda: waits("box"), "the sender to wait")
        process.send_signal(signal.SIGINT)
        assert output(process) == "interrupted\n"
        gate.open()
        assert proc.drain(LONG_S) == []
        queue.send("order", arg1=2)
    assert [i for i, *_ in notes.read()] == [1, 1, 1, 1, 2]


def test_a_full_queue_that_degrades_leaves_a_bit(notes: Notes, gate: Gate) -> None:
    proc, queue = held(notes, gate, on_full="bit", limit=2)
    with running(proc):
        for i in range(10):
            queue.send("order", b"x", arg1=i)
        gate.open()
    assert notes.read() == [[0, 1, False], [1, 1, False], [0, 0, True]]


def test_a_limit_counts_the_event_in_hand(notes: Notes, gate: Gate) -> None:
    proc, queue = held(notes, gate, on_full="raise", limit=1)
    with running(proc):
        queue.send("order")
        notes.wait(1)
        with pytest.raises(MailboxFull):
            queue.send("order")
        gate.open()


def test_memory_for_payloads_runs_out_and_comes_back_whole(notes: Notes, gate: Gate) -> None:
    proc, queue = held(notes, gate, on_full="raise", memory="1 MiB")
    with running(proc):
        went = []
        for size in (60_000, 200, 1_000, 60_000, 30_000, 200_000, 512, 60_000):
            with pytest.raises(MailboxFull) as caught:
                queue.send_many("order", (bytes(size) for _ in range(100_000)))
            sent = caught.value.sent
            went.append((size, sent))
            gate.open(sent)
            assert proc.drain(LONG_S) == []
    assert {sent for size, sent in went if size == 60_000} == {8}
    assert dict(went)[200_000] == 2
    assert dict(went)[512] == dict(went)[200] == 1024
    assert len(notes.read()) == sum(sent for _, sent in went)


def test_memory_for_messages_runs_out_and_comes_back_whole(notes: Notes) -> None:
    go = Words(1)
    proc = Proc("box", vcores=1, memory="1 MiB")
    queue = proc.queue("orders", on_full="raise")
    hold = Gate()

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        if ev.arg1:
            hold.wait()

    with running(proc):
        went = []
        for _ in range(10):
            queue.send("order", arg1=1)
            with pytest.raises(MailboxFull) as caught:
                queue.send_many("order", [b"x"] * 100_000)
            went.append(caught.value.sent)
            hold.open(1)
            assert proc.drain(LONG_S) == []
            assert vcores("box")[0].handled == sum(went) + len(went)
    # 16 pages of 255; a round may begin and end within one, and the vcore's own mail may hold another.
    assert min(went) > 12 * 255
    assert min(went[1:]) >= went[1] - 2 * 255
    go.close()
    hold.close()


# Threads, forks, handles


def test_each_thread_that_sends_is_a_sender_and_gives_its_name_back(notes: Notes) -> None:
    def senders() -> int:
        return sum(slot.role == "sender" for slot in inspect.snapshot("box").slots if slot.alive)

    proc, _ = echo(notes)
    with running(proc), upcall.connect("box") as remote:
        orders, go, before = remote.queue("orders"), threading.Barrier(11), senders()

        def send(thread: int) -> None:
            for i in range(20):
                orders.send("order", arg1=thread, arg2=i)
            go.wait(LONG_S)
            go.wait(LONG_S)

        threads = [threading.Thread(target=send, args=(i,)) for i in range(10)]
        for thread in threads:
            thread.start()
        go.wait(LONG_S)
        during = senders()
        go.wait(LONG_S)
        for thread in threads:
            thread.join(LONG_S)
        assert during - before == 10
        until(lambda: senders() == before, "the slots to be given back")
    for thread in range(10):
        assert [note[1] for note in notes.read() if note[0] == thread] == list(range(20))


def test_a_thread_with_a_reused_identity_is_a_sender_of_its_own(notes: Notes) -> None:
    def owns_a_slot() -> bool:
        slots = inspect.snapshot("box").slots
        return any(slot.alive and slot.tid == threading.get_native_id() and slot.sent == 1 for slot in slots)

    proc, _ = echo(notes)
    with running(proc), upcall.connect("box") as remote:
        orders, seen = remote.queue("orders"), []

        def send() -> None:
            orders.send("order")
            seen.append((threading.get_ident(), owns_a_slot()))

        for _ in range(20):
            thread = threading.Thread(target=send)
            thread.start()
            thread.join(LONG_S)
    assert [owns for _, owns in seen] == [True] * 20
    assert len({ident for ident, _ in seen}) < 20


def test_more_threads_than_slots_one_after_the_other(notes: Notes) -> None:
    proc, queue = echo(notes)
    with running(proc):
        for i in range(600):
            thread = threading.Thread(target=queue.send, args=("order",), kwargs={"arg1": i})
            thread.start()
            thread.join(LONG_S)
    assert [note[0] for note in notes.read()] == list(range(600))


def test_more_threads_than_slots_at_once_is_an_error(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Geometry, "max_slots", 256)
    proc, queue = echo(notes)
    errors: list[BaseException] = []
    with running(proc):
        go = threading.Barrier(301)

        def send() -> None:
            try:
                queue.send("order")
            except upcall.UpcallError as error:
                errors.append(error)
            go.wait(LONG_S)

        threads = [threading.Thread(target=send) for _ in range(300)]
        for thread in threads:
            thread.start()
        go.wait(LONG_S)
        for thread in threads:
            thread.join(LONG_S)
        assert errors
        assert {str(error) for error in errors} == {
            "all 255 attach slots are in use: close handles that are not needed"
        }
        queue.send("order")
    assert len(notes.read()) == 300 - len(errors) + 1


def test_a_forked_child_must_connect_anew(notes: Notes) -> None:
    proc, queue = echo(notes)
    with running(proc), upcall.connect("box") as remote:
        orders = remote.queue("orders")
        orders.send("order", arg1=1)
        queue.send("order", arg1=1)

        def child() -> None:
            mine = [
                lambda: orders.send("order"),
                lambda: orders.send_many("order", [b""]),
                lambda: remote.queue("orders"),
                lambda: remote.vcore(0).send("order"),
                lambda: remote.signal(1),
                lambda: remote.kernel_event(EventType.ALARM),
                lambda: remote.queues,
                remote.stats,
            ]
            for use in mine:
                with pytest.raises(upcall.ForkedHandle, match=rf"handle of 'box' belongs to process {os.getppid()}"):
                    use()
            remote.close()
            with upcall.connect("box") as fresh:
                fresh.queue("orders").send("order", arg1=2)

        assert ended(forked(child)) == 0
        orders.send("order", arg1=3)
        queue.send("order", arg1=3)
    assert [note[0] for note in notes.read()] == [1, 1, 2, 3, 3]


@pytest.mark.parametrize(
    "use",
    [
        lambda remote, orders: orders.send("order"),
        lambda remote, orders: orders.send_many("order", [b""]),
        lambda remote, orders: remote.queue("orders"),
        lambda remote, orders: remote.vcore(0),
        lambda remote, orders: remote.signal(1),
        lambda remote, orders: remote.kernel_event(EventType.ALARM),
        lambda remote, orders: remote.queues,
        lambda remote, orders: remote.stats(),
    ],
    ids=["send", "send_many", "queue", "vcore", "signal", "kernel_event", "queues", "stats"],
)
def test_a_closed_handle_says_so(use: Callable[..., object], notes: Notes) -> None:
    proc, _ = echo(notes)
    with running(proc):
        remote = upcall.connect("box")
        orders = remote.queue("orders")
        orders.send("order")
        remote.close()
        remote.close()
        with pytest.raises(upcall.SegmentError, match="this handle of process 'box' is closed: connect again"):
            use(remote, orders)


@pytest.mark.parametrize("bound", ["send", "vcore"])
def test_what_was_bound_before_the_close_says_so_too(bound: str, notes: Notes) -> None:
    proc, _ = echo(notes)
    with running(proc):
        remote = upcall.connect("box")
        send = remote.queue("orders").send if bound == "send" else remote.vcore(0).send
        send("order")
        remote.close()
        with pytest.raises(upcall.SegmentError, match="this handle of process 'box' is closed: connect again"):
            send("order")
    assert len(notes.read()) == 1


def test_a_handle_outlives_its_process_and_says_that_it_is_gone(notes: Notes) -> None:
    proc, _ = echo(notes)
    with running(proc):
        remote = upcall.connect("box")
        orders = remote.queue("orders")
    with pytest.raises(upcall.ProcessGone, match="process 'box' is ending and takes no more events"):
        orders.send("order")
    with pytest.raises(upcall.ProcessGone):
        remote.vcore(0).send("order")
    with pytest.raises(upcall.ProcessGone) as caught:
        orders.send_many("order", [b"x"] * 3)
    assert caught.value.sent == 0
    remote.close()


def test_handles_that_come_and_go_leave_no_descriptor_open(notes: Notes) -> None:
    proc, _ = echo(notes)
    with running(proc):
        upcall.connect("box").close()
        gc.collect()  # a mapping goes when nothing can hold a view of it any more
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(300):
            with upcall.connect("box") as remote:
                remote.queue("orders").send("order")
        del remote
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before
    assert len(notes.read()) == 300


# Not running


def test_events_for_a_process_that_does_not_run_wait_for_its_next_start(notes: Notes) -> None:
    abandon(echo(notes)[0])
    with upcall.connect("box") as remote:
        for i in range(50):
            remote.queue("orders").send("order", some_bytes(10 * i), arg1=i)
        remote.vcore(0).send("order", arg1=50)
        remote.vcore(0).send("order", arg1=51, private=True)
    assert left("box") == 52
    with running(echo(notes)[0]):
        pass
    got = sorted((note[0], note[4], note[5]) for note in notes.read())
    assert got == [
        *((i, 10 * i, zlib.crc32(some_bytes(10 * i))) for i in range(50)),
        *((i, 0, 0) for i in (50, 51)),
    ]


def test_bits_for_a_process_that_does_not_run_wait_too(notes: Notes) -> None:
    def define() -> Proc:
        return echo(notes, vcores=2, flags=F.NOMSG | F.IPI | F.INDIR | F.FALLBACK)[0]

    abandon(define())
    with upcall.connect("box") as remote:
        remote.queue("orders").send("order")
    with running(define()):
        pass
    assert [note[-1] for note in notes.read()] == [True]


def test_a_blocked_sender_goes_on_when_the_process_is_started_again(notes: Notes) -> None:
    def define() -> Proc:
        return echo(notes, limit=5)[0]

    abandon(define())
    with upcall.connect("box") as remote:
        orders = remote.queue("orders")

        def send() -> None:
            for i in range(30):
                orders.send("order", arg1=i)

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: waits("box"), "the sender to wait")
        with running(define()):
            sender.join(LONG_S)
            assert not sender.is_alive()
    assert [note[0] for note in notes.read()] == list(range(30))


def test_a_process_that_never_comes_back_takes_events_until_memory_ends(notes: Notes) -> None:
    proc = Proc("box", vcores=1, memory="1 MiB")
    proc.queue("orders", on_full="raise")
    proc.on("order")(print)
    abandon(proc)
    with upcall.connect("box") as remote, pytest.raises(MailboxFull) as caught:
        remote.queue("orders").send_many("order", [b"x"] * 10_000)
    assert left("box") == caught.value.sent > 3000
    discard("box")


# Order and number


def test_events_of_one_sender_are_taken_in_the_order_sent(notes: Notes) -> None:
    proc = Proc("box", vcores=1)  # more could take in order and yet write their notes in another
    proc.queue("orders")
    proc.on_batch("order", max=64)(lambda events: notes([(ev.arg1, ev.arg2) for ev in events]))

    def send(sender: int) -> None:
        with upcall.connect("box") as remote:
            for i in range(3000):
                remote.queue("orders").send("order", arg1=sender, arg2=i)

    with running(proc):
        children = [forked(lambda i=i: send(i)) for i in range(3)]  # type: ignore[misc]
        assert [ended(pid) for pid in children] == [0, 0, 0]
    taken = [tuple(event) for (batch,) in notes.read() for event in batch]
    for sender in range(3):
        assert [i for who, i in taken if who == sender] == list(range(3000))


def test_each_vcore_takes_a_senders_events_in_the_order_sent(notes: Notes) -> None:
    proc = Proc("box", vcores=4)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(ev.vcore, ev.arg2))
    with running(proc):
        for i in range(4000):
            queue.send("order", b"x" * (i % 200), arg2=i)
    for vcore in range(4):
        took = [i for v, i in notes.read() if v == vcore]
        assert took == sorted(took)
    assert sorted(i for _, i in notes.read()) == list(range(4000))


def test_private_mail_of_one_sender_is_handled_in_the_order_sent(notes: Notes) -> None:
    proc = Proc("box", vcores=4)
    proc.on("order")(lambda ev: notes(ev.vcore, ev.arg2))
    with running(proc), upcall.connect("box") as remote:
        mine = [remote.vcore(v) for v in range(4)]
        for i in range(2000):
            mine[i % 4].send("order", arg2=i, private=True)
    for vcore in range(4):
        assert [i for v, i in notes.read() if v == vcore] == list(range(vcore, 2000, 4))


@pytest.mark.parametrize("how", ["send", "send_many", "large"])
def test_without_a_death_every_event_is_handled_exactly_once(how: str) -> None:
    each = 20_000 // 3
    counts = Words(4 * 3 * each)
    proc = Proc("box", vcores=4)
    proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        counts[ev.vcore * 3 * each + int(bytes(ev.payload[:6]))] += 1

    def send(sender: int) -> None:
        numbers = range(sender * each, (sender + 1) * each)
        with upcall.connect("box") as remote:
            orders = remote.queue("orders")
            if how == "send_many":
                assert orders.send_many("order", (b"%06d" % i for i in numbers)) == each
                return
            tail = bytes(300) if how == "large" else b""
            for i in numbers:
                orders.send("order", b"%06d" % i + tail)

    with running(proc):
        children = [forked(lambda i=i: send(i)) for i in range(3)]  # type: ignore[misc]
        assert [ended(pid) for pid in children] == [0, 0, 0]
        assert proc.drain(LONG_S) == []
        data = counts.bytes()
        total = 3 * each
        assert sum(data) == total
        assert all(sum(data[v * total + i] for v in range(4)) == 1 for i in range(total))
        assert sum(v.handled for v in vcores("box").values()) == total


@pytest.mark.parametrize(
    "what", ["a signal's handler sends", "the collector finds the name of a thread that has ended"]
)
def test_a_thread_that_is_just_being_attached_is_interrupted(
    what: str, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc = Proc("box", vcores=1)
    proc.queue("orders")
    proc.on("order")(lambda ev: notes(ev.arg1))
    settle = SlotTable._settle

    def life() -> None:
        came: list[int] = []
        with upcall.connect("box") as remote:

            def send_and_end() -> None:
                remote.queue("orders").send("order", arg1=0)
                mine: Any = remote.handle().thread()
                mine.circle = mine

            def interrupted(table: SlotTable, *arguments: Any) -> None:
                if not came:
                    came.append(1)
                    signal.raise_signal(signal.SIGUSR1)
                settle(table, *arguments)

            gc.disable()
            other = threading.Thread(target=send_and_end)
            other.start()
            other.join()
            signal.signal(
                signal.SIGUSR1,
                lambda *_: remote.queue("orders").send("order", arg1=1) if "sends" in what else gc.collect(),
            )
            monkeypatch.setattr(SlotTable, "_settle", interrupted)
            queue = remote.queue("orders")
            queue.send("order", arg1=2)
            gc.collect()
            queue.send("order", arg1=3)
            assert came

    with running(proc):
        assert ended(forked(life)) == 0
        proc.drain(LONG_S)
    assert notes.read() == [[i] for i in range(4) if i != 1 or "sends" in what]
