"""Signals that come while the main thread waits: none is slept over, whenever it comes and whatever thread gets it.

A wait here has no end of its own: what would sleep on is killed after LONG_S, and the test fails.
"""

from __future__ import annotations

import os
import random
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from procs import LONG_S, Gate, Notes, ended, forked, running
from upcall import Proc, connect
from upcall.front import port
from upcall.host.segment import Geometry, create, remove
from upcall.host.stops import StopSignals
from upcall.kern import const

ROUNDS = 1000
"""Before signals changed the awaited word, about 15 of so many were slept over."""

Wait = Callable[..., None]


class Came(BaseException):
    """Raised by a signal handler."""


def came(number: int, frame: object) -> None:
    raise Came


def soon() -> None:
    """SIGALRM within some 20 us: before, at or after the system call of a wait that begins now."""
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 20e-6))


def ends(wait: Wait, cause: Callable[[], object] = soon) -> None:
    """Waits until a handler raises."""
    try:
        cause()
        while True:
            wait()
    except Came:
        pass


@contextmanager
def word() -> Iterator[Wait]:
    """Waits once on a word that nobody changes, with no limit or so many ns."""
    made = create("box", Geometry.for_memory(1, 1 << 24))
    seg = made.attach(const.ROLE_SENDER)
    at = seg.procinfo + const.PI_DRAIN_SEQ
    made.put_u32(at, 0xFFFFFFFF)  # and on to 0

    def wait(timeout_ns: int = -1) -> None:
        port.wait_word(seg, at, made.u32(at), timeout_ns)

    try:
        yield wait
    finally:
        made.detach(seg)
        remove(made)


def in_child(test: Callable[[], None]) -> Callable[[], None]:
    """Runs a test in a forked child, which may sleep for ever."""

    def run() -> None:
        assert ended(forked(test)) == 0

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@in_child
def test_a_signal_that_comes_just_before_the_sleep_is_not_slept_over() -> None:
    """Python's handler only notes it, and the notes have been read: the word that is about to be slept on must change.
    First seen as a worker that slept on for ever after its supervisor's death."""
    signal.signal(signal.SIGALRM, came)
    with word() as wait:
        for _ in range(ROUNDS):
            ends(wait)


def test_a_signal_that_comes_just_before_a_vcore_sleeps_is_not_slept_over() -> None:
    reader, writer = os.pipe()
    proc = Proc("box", spin_us=0)
    proc.queue("work")

    @proc.on("tick")
    def tick(event: object) -> None:
        signal.signal(signal.SIGALRM, lambda number, frame: os.write(writer, b"x"))
        soon()

    with running(proc), connect("box") as remote:
        send = remote.queue("work").send
        for _ in range(ROUNDS):
            send("tick")
            assert select.select([reader], [], [], LONG_S)[0], "slept over"
            os.read(reader, 1)
    os.close(reader)
    os.close(writer)


@in_child
def test_a_signal_that_another_thread_gets_ends_the_main_threads_wait() -> None:
    signal.signal(signal.SIGUSR1, came)
    go = threading.Semaphore(0)

    def other() -> None:
        while True:
            go.acquire()
            for _ in range(random.randrange(2000)):
                pass
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    threading.Thread(target=other, daemon=True).start()
    with word() as wait:
        for _ in range(200):
            ends(wait, go.release)


@in_child
def test_a_signal_handler_may_wait_itself() -> None:
    def handler(number: int, frame: object) -> None:
        signal.signal(signal.SIGALRM, came)
        ends(wait)
        soon()

    with word() as wait:
        for _ in range(200):
            signal.signal(signal.SIGALRM, handler)
            ends(wait)


@in_child
def test_whoever_has_the_wake_up_fd_gets_its_bytes_and_keeps_it() -> None:
    signal.signal(signal.SIGALRM, came)
    reader, writer = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(writer)
    with word() as wait:
        for _ in range(200):
            ends(wait)
            assert signal.SIGALRM in os.read(reader, 64)
    assert signal.set_wakeup_fd(-1) == writer


@in_child
def test_a_wake_up_fd_that_was_closed_is_not_given_back() -> None:
    """Its number is soon another file's: here our own pipe's."""
    with word() as wait:
        reader, writer = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(writer)
        os.close(writer)
        os.close(reader)
        wait(1)
    assert signal.set_wakeup_fd(-1) == -1


@in_child
def test_a_closed_wake_up_fd_is_not_given_back_either_when_no_file_has_its_number() -> None:
    """One may have it later, and would get the signals' bytes."""
    with word() as wait:
        wait(1)  # our pipe is there
        reader, writer = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(writer)
        os.close(writer)
        os.close(reader)
        wait(1)
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("first", ["handler", "wait"])
def test_sigurg_is_handed_on(first: str) -> None:
    """The waits use SIGURG; a program that has a handler for it is told all the same."""

    @in_child
    def run() -> None:
        with word() as wait:
            if first == "wait":
                signal.signal(signal.SIGALRM, came)
                ends(wait)
            signal.signal(signal.SIGURG, came)
            with pytest.raises(Came):
                signal.raise_signal(signal.SIGURG)
            ends(wait, threading.Thread(target=lambda: os.kill(os.getpid(), signal.SIGURG)).start)
            with pytest.raises(Came):
                signal.raise_signal(signal.SIGURG)

    run()


@in_child
def test_a_child_that_another_thread_forks_during_a_wait_has_no_part_in_it() -> None:
    signal.signal(signal.SIGUSR1, came)
    codes: list[int] = []

    def child() -> None:
        assert signal.set_wakeup_fd(-1) == -1
        with pytest.raises(Came):
            signal.raise_signal(signal.SIGUSR1)

    def fork() -> None:
        codes.extend(ended(forked(child)) for _ in range(20))
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=fork)
    with word() as wait:
        ends(wait, thread.start)
    thread.join()
    assert codes == [0] * 20


def test_a_stop_signal_to_a_child_that_a_thread_has_forked_is_not_lost() -> None:
    """Python 3.13.0 runs no signal handlers between bytecodes there: the byte was read, and the signal not yet noted."""
    codes: list[int] = []
    reader, writer = os.pipe()

    def child() -> None:
        with StopSignals() as signals:
            os.write(writer, b"x")
            while not select.select([signals.fd], [], [], 0)[0]:
                pass
            assert signals.take() == [signal.SIGTERM]

    def fork() -> None:
        for _ in range(10):
            pid = forked(child)
            os.read(reader, 1)
            os.kill(pid, signal.SIGTERM)
            codes.append(ended(pid))

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    os.close(reader)
    os.close(writer)
    assert codes == [0] * 10


def test_ctrl_c_ends_a_drain_that_waits(gate: Gate) -> None:
    proc = Proc("box")
    proc.queue("orders")
    proc.on("order")(lambda event: gate.wait())

    def drain() -> None:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 1e-3))
        proc.drain(LONG_S)

    former = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with running(proc):
            with connect("box") as remote:
                remote.queue("orders").send("order")
            with pytest.raises(TimeoutError):
                proc.drain(1e-9)  # everything that a first call imports and attaches to is there
            for _ in range(100):
                with pytest.raises(KeyboardInterrupt):
                    drain()
            gate.open()
    finally:
        signal.signal(signal.SIGALRM, former)


def test_a_signal_handler_may_send_to_the_queue_that_a_send_waits_for(notes: Notes, gate: Gate) -> None:
    """The message of the send that waits is not the handler's to fill: once the handler's was sent twice, and the other
    not at all."""
    proc = Proc("box")
    proc.queue("orders", limit=1)

    @proc.on("order")
    def order(event: object) -> None:
        notes(bytes(event.payload).decode())  # type: ignore[attr-defined]
        gate.wait()

    def send() -> None:
        with connect("box") as remote:
            orders = remote.queue("orders")

            def handler(number: int, frame: object) -> None:
                gate.open()
                orders.send("order", b"the handler's")

            signal.signal(signal.SIGALRM, handler)
            orders.send("order", b"in hand")
            notes.wait(1)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            orders.send("order", b"waits")

    with running(proc):
        assert ended(forked(send)) == 0
        proc.drain(LONG_S)
    assert sorted(text for (text,) in notes.read()) == ["in hand", "the handler's", "waits"]
