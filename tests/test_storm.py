"""`upcall storm`: what survives it, and that its checker sees what does not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pages import session, shape
from procs import ended, forked, until
from upcall import UpcallError, inspect
from upcall.host.segment import Geometry, Segment, create, open_segment, remove
from upcall.kern import const
from upcall.kern.arena import alloc_block
from upcall.kern.event import set_bit
from upcall.kern.layout import Msg
from upcall.kern.pages import alloc_page
from upcall.kern.proc import proc_lock
from upcall.kern.ucq import claim_slot, send_ucq_msg
from upcall.storm import Plan, killer, run, settle, target
from upcall.storm import ledger as books
from upcall.storm.check import Verdict, check
from upcall.storm.ledger import Ledger
from upcall.storm.leftovers import leftovers, unkept_flags
from upcall.storm.participants import log_problems
from upcall.storm.storm import Storm

COMMAND = [sys.executable, "-m", "upcall.cli", "storm"]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where storms put their files."""
    path = tmp_path / "storms"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    monkeypatch.setenv("TMPDIR", str(path))
    return path


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger(2, 2, 1000, 10)
    yield made
    made.close()


# Whole storms


@pytest.mark.parametrize(
    "how", [(), ("--thread",), ("--no-supervisor",), ("--vcores", "1", "--senders", "1")], ids=" ".join
)
def test_nothing_is_lost_in_a_storm(how: tuple[str, ...], temporary: Path) -> None:
    done = subprocess.run([*COMMAND, "--seconds", "3", "--seed", "1", "--json", *how], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["problems"] == []
    assert result["handled"] + result["given_up"] >= result["sent"] > 0
    assert sum(sum(hits.values()) for hits in result["hits"].values()) > 0
    assert result["restarts"]["sender"] > 0
    assert result["duplicates"] <= result["redeliveries"]
    assert (result["seed"], result["lost"], result["hung"], result["stopped_early"]) == (1, 0, None, False)
    assert not list(temporary.iterdir())


def test_ctrl_c_ends_it_early_with_a_verdict() -> None:
    with subprocess.Popen(
        [*COMMAND, "--seconds", "600", "--vcores", "2", "--senders", "1"], stdout=subprocess.PIPE, text=True
    ) as storm:
        until(lambda: any(process.total("handled") > 100 for process in inspect.snapshots()), "a storm to begin")
        storm.send_signal(signal.SIGINT)
        output, _ = storm.communicate()
        assert storm.returncode == 0
        assert "0 lost, 0 left over, 0 hung" in output
    ((_, said),) = session("README.md", "upcall storm")
    shown, told = shape(said, digits=1), shape(output, digits=1)
    assert told == [line for line in shown if line in told or "from a hit" not in line]  # if none was hit so early


def result_of(capsys: pytest.CaptureFixture[str], plan: Plan) -> tuple[int, dict[str, Any]]:
    """The exit code of a storm in this process, and its verdict."""
    code = run(plan, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def test_an_event_that_was_never_handled_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], temporary: Path
) -> None:
    blow = Storm.blow

    def lie(storm: Storm, screen: Any) -> None:
        """The ledger is told that the last seat has sent something."""
        blow(storm, screen)
        storm.ledger.words[storm.ledger.seat(storm.plan.senders) + books.NUMBER] = 1
        storm.ledger.bytes[storm.ledger.sends(storm.plan.senders) + 1] = books.RETURNED

    monkeypatch.setattr(Storm, "blow", lie)
    code, result = result_of(capsys, Plan(1, 2, 0.5, 20, 3))
    assert code == 1
    assert result["lost"] == 1
    assert result["problems"] == ["1 event(s) lost: seat 1 number 1 (plain)"]
    kept = Path(result["kept"])
    assert kept.parent == temporary
    assert json.loads((kept / "result.json").read_text())["seed"] == 3
    monkeypatch.setenv("UPCALL_DIR", str(kept))
    assert inspect.dump(result["name"])["procinfo"]["state"]


def test_a_handler_that_does_not_return_is_a_hang(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settle, "PATIENCE_S", 1.0)
    monkeypatch.setattr(target, "PAUSES_S", (3600.0,))
    code, result = result_of(capsys, Plan(1, 1, 0.2, 0.1, 4))
    assert code == 1
    assert result["hung"].startswith("nothing handled for 1 s, and ")
    assert result["problems"][0] == f"hung: {result['hung']}"
    waiting = json.loads((Path(result["kept"]) / "dump.json").read_text())["queues"]
    assert any(queue["name"] == "slow" and queue["depth"] for queue in waiting)


def test_a_sender_that_fails_is_a_problem(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("upcall.storm.sender.Sender.bit", fail)
    code, result = result_of(capsys, Plan(1, 1, 5, 0.1, 5))
    assert code == 1
    assert any("ended with 1" in problem for problem in result["problems"])
    assert "RuntimeError: no" in (Path(result["kept"]) / "log").read_text()


def test_a_storm_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr(target, "MEMORY", "64 KiB")
    with pytest.raises(UpcallError, match=r"does not start: supervisor .* ended with 1.*memory=65536"):
        run(Plan(1, 1, 0.2, 1, 6), as_json=True)
    assert not list(temporary.iterdir())


# The books


class Box:
    """Events as a handler sees them, and the book that they are entered into."""

    def __init__(self, ledger: Ledger, vcore: int = 0) -> None:
        self.ledger, self.book, self.vcore = ledger, target.Book(ledger), vcore

    def event(self, number: int, *, kind: int = target.PLAIN, incarnation: int = 1, redeliveries: int = 0) -> Any:
        payload = target.ID.pack(number, incarnation, 5, 0, target.lane_of(kind)) + target.known_bytes(number, 5)
        return SimpleNamespace(payload=payload, arg4=0, redeliveries=redeliveries, vcore=self.vcore)

    def handle(self, number: int, **fields: int) -> None:
        self.book.note(self.event(number, **fields))


def send(ledger: Ledger, states: list[int], kind: int = target.PLAIN) -> None:
    """Seat 0 has sent as many events as there are states."""
    ledger.words[ledger.seat(0) + books.NUMBER] = len(states)
    at = ledger.sends(0) + 1
    ledger.bytes[at : at + len(states)] = bytes(kind << books.KIND_SHIFT | state for state in states)


def verdict(ledger: Ledger) -> Verdict:
    """What the checker says, once: looking changes nothing."""
    found = check(ledger)
    assert found == check(ledger)
    return found


def test_all_is_well_with_books_that_are(ledger: Ledger) -> None:
    send(ledger, [books.RETURNED, books.BEGUN, books.BEGUN, books.RAISED, books.RETURNED])
    box = Box(ledger)
    for number in (1, 2, 5):
        box.handle(number)
    found = verdict(ledger)
    assert (found.sent, found.unsure, found.handled, found.problems) == (2, 2, 3, [])


def test_what_was_sent_and_not_handled_is_lost(ledger: Ledger) -> None:
    send(ledger, [books.RETURNED] * 20)
    box = Box(ledger)
    for number in range(3, 20):
        box.handle(number)
    found = verdict(ledger)
    assert found.lost == 3
    assert found.problems == [
        "3 event(s) lost: seat 0 number 1 (plain), seat 0 number 2 (plain), seat 0 number 20 (plain)"
    ]


@pytest.mark.parametrize("state", [0, books.RAISED])
def test_what_was_not_sent_must_not_be_handled(state: int, ledger: Ledger) -> None:
    send(ledger, [state])
    Box(ledger).handle(1)
    assert verdict(ledger).problems == ["1 event(s) handled but never sent: seat 0 number 1 (plain)"]


def test_a_duplicate_is_excused_by_its_death(ledger: Ledger) -> None:
    send(ledger, [books.RETURNED] * 2)
    for redeliveries in (0, 1, 2):
        Box(ledger).handle(1, redeliveries=redeliveries)
    Box(ledger).handle(2, redeliveries=3)
    found = verdict(ledger)
    assert (found.duplicates, found.redelivered, found.problems) == (2, 2, [])


@pytest.mark.parametrize("redeliveries", [0, 1])
def test_a_duplicate_without_a_death_is_a_problem(redeliveries: int, ledger: Ledger) -> None:
    send(ledger, [books.RETURNED])
    for vcore in (0, 1):
        Box(ledger, vcore).handle(1, redeliveries=redeliveries)
    assert verdict(ledger).problems == [
        "vcore 1: 1 event(s) handled twice without a death between; the last bad one: seat 0 number 1"
    ]


def test_a_dead_letter_is_not_lost(ledger: Ledger) -> None:
    send(ledger, [books.RETURNED] * 3, target.RELAY)
    box = Box(ledger)
    box.handle(1)
    for number, kind in ((1, target.RELAYED), (2, "relay")):
        target.bury(ledger, SimpleNamespace(payload=box.event(number).payload, type=kind))  # type: ignore[arg-type]
    found = verdict(ledger)
    assert (found.given_up, found.lost) == (1, 1)
    assert found.problems == ["1 event(s) lost: seat 0 number 3 (relay)"]


def test_order_holds_per_vcore_mailbox_and_incarnation(ledger: Ledger) -> None:
    send(ledger, [books.RETURNED] * 6)
    box = Box(ledger)
    box.handle(4)
    box.handle(2, kind=target.BLOCK)  # another mailbox
    box.handle(3, incarnation=2)  # another sender
    Box(ledger, 1).handle(1)  # another vcore
    box.handle(5, redeliveries=1)
    box.handle(6)
    assert verdict(ledger).problems == []
    box.handle(5)
    assert verdict(ledger).disorder == 1
    assert verdict(ledger).problems == ["vcore 0: 1 event(s) handled out of order; the last bad one: seat 0 number 5"]


@pytest.mark.parametrize(
    "payload", [b"", b"short", target.ID.pack(1, 1, 4, 0, 0) + b"abcd", target.ID.pack(1, 1, 0, 9, 0)]
)
def test_an_event_that_is_not_whole_is_damaged(payload: bytes, ledger: Ledger) -> None:
    box = Box(ledger)
    event = box.event(1)
    event.payload = payload
    box.book.note(event)
    assert verdict(ledger).damaged == 1


def test_arguments_are_checked_too(ledger: Ledger) -> None:
    box = Box(ledger)
    event = box.event(1)
    event.arg1, event.arg2, event.arg3, event.arg4 = target.arguments(1, 1, 0)
    assert box.book.read(event) == (1, 1, 0, 0)
    event.arg3 = 2
    assert box.book.read(event) is None


def test_a_relayed_event_must_arrive_twice(ledger: Ledger) -> None:
    send(ledger, [books.RETURNED] * 3, target.RELAY)
    box = Box(ledger)
    for number in (1, 2, 3):
        box.handle(number, kind=target.RELAY)
    box.book.note_relayed(box.event(1))
    ledger.bytes[ledger.relays(0) + 2] = books.REFUSED
    assert verdict(ledger).problems == ["1 event(s) lost: seat 0 number 3 (relay) in its second hop"]


def test_a_bit_that_nobody_saw_is_lost(ledger: Ledger) -> None:
    at = ledger.seat(0)
    ledger.words[at + books.WANTED] = 3
    Box(ledger).book.note_bit(SimpleNamespace(vcore=1))
    ledger.words[at + books.ANSWERED] = 3
    assert verdict(ledger).problems == []
    ledger.words[at + books.WANTED] = ledger.words[at + books.ANSWERED] = 4
    assert verdict(ledger).bits_lost == 1


def test_silences_last_until_somebody_handles_an_event(ledger: Ledger) -> None:
    box = Box(ledger)
    for now, handled in ((10, 0), (20, 25), (30, 37)):
        ledger.note_kill(now)
        ledger.words[ledger.kill(ledger.words[books.KILLS] - 1) + books.NEXT_NS] = handled
    ledger.note_kill(40)
    assert sorted(ledger.silences()) == [5, 7, 15]
    box.handle(1)
    assert len(list(ledger.silences())) == 4


def test_the_log_tells_of_other_deaths(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "WARNING box/vcore 0: worker ended (signal 9 (SIGKILL)) after 1 s\n"
        "WARNING box/vcore 1: worker ended (signal 11 (SIGSEGV)) after 1 s\n"
        "ERROR box/vcore 1: handler failed for <Event>\nTraceback\n"
        "INFO all is well\n"
    )
    assert log_problems(log) == [
        "logged: box/vcore 1: worker ended (signal 11 (SIGSEGV)) after 1 s",
        "logged: box/vcore 1: handler failed for <Event>",
    ]


# What is left over


@pytest.fixture
def box() -> Iterator[Segment]:
    """An open segment with one queue."""
    made = create("box", Geometry.for_memory(1, 8 << 20))
    yield made
    remove(made)
    made.close()


def used(segment: Segment, role: int = const.ROLE_SENDER) -> Any:
    """A name in the segment that has used a bit of everything, and given it back or not."""
    seg = segment.attach(role)
    msg = Msg()
    msg.ev_type, msg.length = const.TYPE_PROGRAM, 0
    assert send_ucq_msg(seg, 0, msg) == const.OK
    assert claim_slot(seg, 0)
    assert alloc_page(seg)
    assert alloc_block(seg, 600)
    assert alloc_block(seg, 200_000)
    assert proc_lock(seg)
    return seg


def test_what_the_dead_leave_is_scavenged(box: Segment) -> None:
    def die() -> None:
        seg = used(open_segment("box"))
        assert seg
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(die)) == -signal.SIGKILL
    seg = box.attach(const.ROLE_READER)
    # What it had sent whole is an event, and waits for its vcore.
    assert list(leftovers(box, seg)) == ["mailbox 0: slots {'READY': 1}"]


def test_what_the_living_hold_is_left_over(box: Segment) -> None:
    used(box)
    set_bit(box.attach(const.ROLE_SENDER), 1, const.TYPE_PROGRAM)
    left = list(leftovers(box, box.attach(const.ROLE_READER)))
    assert "mailbox 0: slots {'READY': 1, 'CLAIMED': 1}" in left
    assert "mailbox 1: a bit is set" in left
    assert "page 2: CLAIMED, and no mailbox's" in left
    assert "proc_lock is held" in left
    assert sum("SMALL, 1 block(s) held" in what for what in left) == 1
    assert sum("LARGE" in what or "BODY" in what for what in left) == 4
    assert sum("attach slot" in what for what in left) == 2


def test_a_flag_without_its_deed_is_seen(box: Segment) -> None:
    assert list(unkept_flags(box)) == []
    box.put_u32(box.seg.procinfo + const.PI_NR_QUEUES, 1)
    box.put_text(box.seg.queues + const.EVQ_NAME, "orders")
    box.put_u64(box.seg.queues + const.EVQ_ALERT, const.ALERT_DONE)
    assert list(unkept_flags(box)) == ["queue 'orders' says DONE while every vcore sleeps"]


# The killer


@pytest.fixture
def victim() -> Iterator[int]:
    """A child that waits for its end."""
    pid = forked(signal.pause)
    yield pid
    os.kill(pid, signal.SIGKILL)
    ended(pid)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_only_a_living_child_is_held(victim: int) -> None:
    held = killer.hold(victim, os.getpid())
    assert held is not None
    os.close(held)
    assert victim in killer.children(os.getpid())
    assert killer.hold(os.getpid(), os.getpid()) is None
    dead = forked(lambda: None)
    until(lambda: state(dead) == "Z", "its end")
    assert killer.hold(dead, os.getpid()) is None
    ended(dead)
    assert killer.hold(dead, os.getpid()) is None


@pytest.mark.parametrize("deed", [killer.STOP, killer.STOP_KILL])
def test_who_is_stopped_goes_on_or_is_killed(deed: str, victim: int) -> None:
    hits: list[int] = []
    targets: killer.Targets = {"sender": {victim: partial(killer.hold, victim, os.getpid())}}
    one = killer.Killer(random.Random(1), 1000, lambda: targets, lambda: hits.append(1), (deed,))
    until(lambda: (one.step(), one.stopped)[1], "a hit")
    until(lambda: state(victim) == "T", "a stop")
    assert one.due() <= one.stopped[0].due
    until(lambda: (one.step(), one.missed)[1], "a hit while nobody can be hit")
    assert one.deeds["sender", deed] == 1
    one.end()
    until(lambda: state(victim) in ("S" if deed == killer.STOP else "Z"), "its going on")
    assert len(hits) == (1 if deed == killer.STOP else 2)


def test_the_supervisor_is_hit_now_and_then_only() -> None:
    chosen: list[int] = []
    targets: killer.Targets = {
        "sender": {1: lambda: chosen.append(1)},  # type: ignore[func-returns-value]
        "supervisor": {2: lambda: chosen.append(2)},  # type: ignore[func-returns-value]
    }
    one = killer.Killer(random.Random(1), 1000, lambda: targets)
    for _ in range(1000):
        one.hit()
    assert 0 < chosen.count(2) < chosen.count(1)
    assert one.missed == 1000


def test_late_hits_are_not_made_up_for_all_at_once() -> None:
    one = killer.Killer(random.Random(1), 100, dict)
    one.next = time.monotonic() - 1000
    one.step()
    assert one.next > time.monotonic() - 1


def test_every_kind_of_event_comes_in_roll_call() -> None:
    kinds: set[int] = set()

    class Calls:
        vcores = 2
        queues = range(target.PRIVATE)

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda kind=None, *_: kinds.add(kind if name != "batch" else target.BATCH)

    from upcall.storm.sender import Sender

    Sender.roll_call(Calls())  # type: ignore[arg-type]
    assert kinds >= set(range(len(target.KINDS)))
