"""Workers that are stopped (SIGSTOP) or hang in a handler, through real processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import upcall
from procs import LONG_S, Gate, Notes, ended, forked, log_to, running, until, vcore_info
from upcall import Proc
from upcall.kern import const, ucq
from upcall.kern.event import queue_mbox
from upcall.kern.layout import Msg, word


def vcore(name: str, vcoreid: int) -> Any:
    return vcore_info(name)[vcoreid]


def stop_worker(name: str, vcoreid: int) -> int:
    """Stops a worker, and returns when it has stopped."""
    pid: int = vcore(name, vcoreid).pid
    os.kill(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the stop")
    return pid


@pytest.mark.parametrize("host", ["process", "thread"])
def test_others_take_over_from_a_handler_that_hangs(notes: Notes, gate: Gate, host: Any) -> None:
    """G2, G5: what waits goes to others, what is in its hands stays, and is handled once."""
    proc = Proc("box", vcores=2, host=host, preempt_after_ms=20)
    queue = proc.queue("orders", vcore=0)

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1, ev.vcore, ev.redelivered)
        if ev.arg1 == 0:
            gate.wait()

    with running(proc):
        queue.send("order", arg1=0)
        (first,) = notes.wait(1)
        # To the hanging vcore itself: its public mail.
        proc.vcore(first[1]).send("order", arg1=1)
        queue.send("order", arg1=2)
        notes.wait(3)
        until(lambda: vcore("box", first[1]).state == "AWAY", "the preemption")
        assert vcore("box", first[1]).taken_over == 1
        gate.open(1)
        assert proc.drain(LONG_S) == []
        until(lambda: vcore("box", first[1]).state in ("ONLINE", "OFFLINE"), "its return")
    assert sorted(note[0] for note in notes.read()) == [0, 1, 2]
    assert [note[1] for note in notes.read()[1:]] == [1 - first[1]] * 2


def test_a_stopped_worker_keeps_its_event_and_nothing_else(notes: Notes) -> None:
    """It stops itself in a handler; when it goes on, its event ends, once."""
    proc = Proc("box", vcores=2, preempt_after_ms=20)
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        if ev.arg1 == 0:
            notes("stops", os.getpid())
            os.kill(os.getpid(), signal.SIGSTOP)
        notes(ev.arg1, ev.redelivered)

    with running(proc):
        queue.send("order", arg1=0)
        ((_, pid),) = notes.wait(1)
        for i in range(1, 100):
            queue.send("order", arg1=i)
        notes.wait(100)
        os.kill(pid, signal.SIGCONT)
        assert proc.drain(LONG_S) == []
    assert sorted(note[0] for note in notes.read()[1:]) == list(range(100))
    assert not any(note[1] for note in notes.read()[1:])


def test_a_worker_stopped_in_its_sleep_holds_nothing_up(notes: Notes) -> None:
    proc = Proc("box", vcores=2, preempt_after_ms=20)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(ev.arg1, ev.vcore))
    with running(proc):
        until(lambda: all(v.state == "OFFLINE" for v in vcore_info("box").values()), "sleep")
        pid = stop_worker("box", 0)
        for i in range(20):
            queue.send("order", arg1=i)
            assert proc.drain(LONG_S) == []
        os.kill(pid, signal.SIGCONT)
        until(lambda: vcore("box", 0).state == "OFFLINE", "its return")
        proc.vcore(0).send("order", arg1=20)
        assert proc.drain(LONG_S) == []
    assert sorted(note[0] for note in notes.read()) == list(range(21))
    assert notes.read()[-1] == [20, 0]


def test_every_worker_may_be_stopped_and_go_on(notes: Notes) -> None:
    """With all stopped the events wait; the first to go on takes them."""
    proc = Proc("box", vcores=2, preempt_after_ms=20)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(ev.arg1))
    with running(proc):
        pids = [stop_worker("box", v) for v in range(2)]
        for i in range(50):
            queue.send("order", arg1=i)
        time.sleep(0.1)  # the watcher looks a few times, and finds nobody to take over
        assert notes.read() == []
        os.kill(pids[1], signal.SIGCONT)
        notes.wait(50)
        os.kill(pids[0], signal.SIGCONT)
        assert proc.drain(LONG_S) == []
    assert sorted(note[0] for note in notes.read()) == list(range(50))


def test_a_hanging_worker_is_killed_if_the_program_says_so(notes: Notes, gate: Gate, tmp_path: Any) -> None:
    """on_hang="kill": then it is a death, and its event is handled again."""
    proc = Proc("box", vcores=2, preempt_after_ms=20, on_hang="kill")
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(ev.arg1, ev.redelivered, ev.vcore)
        if ev.arg1 == 0 and not ev.redelivered:
            gate.wait()

    with log_to(tmp_path / "log") as log, running(proc):
        queue.send("order", arg1=0)
        ((*_, hangs),) = notes.wait(1)
        proc.vcore(hangs).send("order", arg1=1)
        notes.wait(3)
        assert proc.drain(LONG_S) == []
        until(lambda: sum(v.restarts for v in vcore_info("box").values()) == 1, "the restart")
    assert [0, True] in [note[:2] for note in notes.read()]
    assert "killed (on_hang='kill')" in log.read_text()


def test_a_handler_that_hangs_with_nothing_waiting_is_left_alone(notes: Notes, gate: Gate) -> None:
    proc = Proc("box", vcores=2, preempt_after_ms=5, on_hang="kill")
    queue = proc.queue("orders")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        notes(os.getpid())
        gate.wait()

    with running(proc):
        queue.send("order")
        notes.wait(1)
        # On a busy machine a vcore may have been slow to wake, and taken over for that.
        before = [v.taken_over for v in vcore_info("box").values()]
        time.sleep(0.2)  # dozens of looks
        assert [v.taken_over for v in vcore_info("box").values()] == before
        gate.open(1)
        assert proc.drain(LONG_S) == []
    assert len(notes.read()) == 1


def test_user_code_that_was_preempted_is_interrupted_when_it_can_be(notes: Notes, gate: Gate) -> None:
    """A vcore in a long C call in user code is AWAY; it comes back, though its user code never ends by itself."""
    proc = Proc("box", vcores=2, preempt_after_ms=20)
    queue = proc.queue("orders", vcore=0)
    proc.on("order")(lambda ev: notes(ev.arg1, ev.vcore))

    @proc.main
    def main() -> None:
        if not os.environ.get("BOX_MAIN"):
            os.environ["BOX_MAIN"] = "1"
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
            notes("in", os.getpid())
            gate.wait()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            while True:
                pass

    with running(proc):
        notes.wait(2)
        queue.send("order", arg1=1)
        proc.vcore(0).send("order", arg1=2)
        proc.vcore(1).send("order", arg1=3)
        time.sleep(0.1)
        gate.open(2)
        notes.wait(5)
        until(lambda: not any(v.state == "AWAY" for v in vcore_info("box").values()), "their return")
    assert sorted(n[0] for n in notes.read() if n[0] != "in") == [1, 2, 3]


@pytest.mark.parametrize("bad", ["maybe", None])
def test_on_hang_is_one_of_two(bad: Any) -> None:
    with pytest.raises(ValueError, match="on_hang"):
        Proc("box", on_hang=bad)


def test_a_thread_cannot_be_killed() -> None:
    with pytest.raises(ValueError, match="use host='process'"):
        Proc("box", host="thread", on_hang="kill")


# ---- for long, with little memory ------------------------------------------------------------------------------------

LITTLE = "1 MiB"
"""16 pages, of which each mailbox in use keeps one."""
BURST, BURSTS = 1000, 16
"""Four times what they hold goes through."""


def go_through(proc: Proc, queue: Any, before: int = 0) -> None:
    """Many events, that raise if there is no room for them; all are handled by who is left."""
    for burst in range(1, BURSTS + 1):
        queue.send_many("order", [b""] * BURST)
        until(
            lambda burst=burst: sum(v.handled for v in vcore_info("box").values()) >= before + burst * BURST,
            f"burst {burst} of {BURSTS}",
        )


def test_an_event_in_a_stopped_workers_hands_keeps_one_page(notes: Notes) -> None:
    """The others go on for ever behind it; when it goes on it handles its event, and all memory is there again."""
    proc = Proc("box", vcores=2, memory=LITTLE, preempt_after_ms=20)
    queue = proc.queue("orders", on_full="raise")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        if ev.arg1 == 1:
            notes("stops", os.getpid())
            os.kill(os.getpid(), signal.SIGSTOP)
            notes("goes on", ev.redelivered)

    with running(proc):
        queue.send("order", arg1=1)
        ((_, pid),) = notes.wait(1)
        go_through(proc, queue)
        os.kill(pid, signal.SIGCONT)
        assert notes.wait(2)[1] == ["goes on", False]
        assert proc.drain(LONG_S) == []
    assert len(notes.read()) == 2


def test_senders_stopped_in_their_claims_keep_one_page_each(notes: Notes) -> None:
    """Two of them, in different pages; when they go on their events are handled."""
    proc = Proc("box", vcores=2, memory=LITTLE)
    queue = proc.queue("orders", on_full="raise")
    proc.on("order")(lambda ev: notes(ev.arg1) if ev.arg1 else None)

    def claims_and_stops(number: int) -> None:
        """What `send` does, with a stop after the claim."""
        handle = upcall.connect("box")._handle
        seg, box = handle.thread().seg, queue_mbox(handle.thread().seg, handle.queues["orders"])
        where = ucq.claim_slot(seg, box)
        os.kill(os.getpid(), signal.SIGSTOP)
        msg = Msg()
        msg.ev_type, msg.arg1, msg.queue = handle.resolve("order"), number, handle.queues["orders"] + 1
        ucq.fill_slot(seg, ucq.slot_at(seg, where), msg)
        handle.segment.put_u64(ucq.slot_at(seg, where), word(const.READY, where >> 32, seg.me))

    with running(proc):
        stopped = []
        for number in (1, 2):
            pid = forked(lambda number=number: claims_and_stops(number))
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
            stopped.append(pid)
            go_through(proc, queue, before=(number - 1) * BURST * BURSTS)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
            assert ended(pid) == 0
        queue.send("order")  # tells a vcore to look
        assert sorted(notes.wait(2)) == [[1], [2]]
        assert proc.drain(LONG_S) == []
