"""G10 through real processes: words of a running process's segment are overwritten while its workers, its supervisor and
senders use them. Its events may be lost. Nobody crashes, hangs or spins, and nothing beside the segment changes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import upcall
from fuzzer import Scribbler, digest, program, sending
from procs import LONG_S, Gate, Notes, Words, discard, ended, forked, log_to, running, until
from upcall import Proc
from upcall.host.segment import Segment, open_segment
from upcall.host.settle import open_host
from upcall.kern import const
from upcall.kern.layout import name_of, slot_record_at, vcpd_at

SENDERS = 2


def cpu_ticks(pids: list[int]) -> int:
    """CPU time of these processes."""
    found = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return found


def family(pid: int) -> list[int]:
    """A process, and those that it has forked."""
    with contextlib.suppress(OSError):
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return []


def rests(pid: int) -> bool:
    """Whether a process and those that it has forked use no CPU for a while."""
    before = cpu_ticks(family(pid))
    time.sleep(0.1)
    return cpu_ticks(family(pid)) == before


def all_move(words: Words) -> None:
    """Every sender comes to the end of what it does."""
    before = words.bytes()
    until(lambda: all(words[i] != before[i] for i in range(1, 1 + SENDERS)), "the senders")


@contextlib.contextmanager
def hostile(proc: Proc) -> Iterator[int]:
    """A started process whose segment is not to be trusted, pids in it included; the supervisor's pid. Its end is by its own
    pids, and what is left of it is removed."""
    proc.start()
    pid: int = proc._running.pid  # type: ignore[union-attr]
    try:
        yield pid
    finally:
        if proc._running is not None:
            for one in family(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
        discard(proc.name)


@contextlib.contextmanager
def scribbled(name: str) -> Iterator[Segment]:
    """The open segment of a running process, to write into."""
    segment = open_segment(name)
    try:
        yield segment
    finally:
        segment.close()


@pytest.mark.parametrize(("seed", "header"), [(1, False), (2, False), (3, True)])
def test_nobody_is_hurt_by_hostile_bytes(
    seed: int, header: bool, notes: Notes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trial(seed, 1.5, header, notes, tmp_path)
    assert "Traceback" not in (err := capfd.readouterr().err), err


def trial(seed: int, seconds: float, header: bool, notes: Notes, tmp_path: Path) -> None:
    """One fuzzed process, beside one whose events must all be handled, and a file that must stay as it is."""
    print(f"seed {seed}, {seconds} s, header {header}")
    canary = Proc("canary", vcores=2)
    birds = canary.queue("birds")
    canary.on("song")(lambda ev: notes("song", ev.arg1))
    (tmp_path / "beside").write_bytes(os.urandom(65536))
    faults, words, sung = tmp_path / "faults", Words(1 + SENDERS), 0
    with log_to(tmp_path / "log"), running(canary), open(faults, "w") as file:
        was = digest(tmp_path / "beside")
        proc = program(file, vcores=1 if header else 3)
        with hostile(proc) as supervisor:
            senders = [forked(lambda i=i: sending(f"{seed} {i}", notes, words, i)) for i in range(1, 1 + SENDERS)]  # type: ignore[misc]
            try:
                scribbler = Scribbler(proc.name, str(seed), header=header)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    scribbler.run(0.25)
                    birds.send("song", arg1=sung)
                    sung += 1
                    all_move(words)
                scribbler.memory.close()
                words[0] = 1
                while senders:
                    assert ended(senders.pop()) == 0
                until(lambda: rests(supervisor), "rest")
                proc.stop("now" if seed % 2 else "drain", timeout=LONG_S)
            finally:
                for pid in senders:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        assert canary.drain(LONG_S) == []
        assert digest(tmp_path / "beside") == was
    words.close()
    assert faults.read_text() == ""
    found = notes.read()
    assert [note for note in found if note[0] != "song"] == []
    assert sorted(note[1] for note in found) == list(range(sung))


def test_a_stop_word_that_nobody_writes_is_a_stop_and_no_endless_loop(notes: Notes) -> None:
    proc = Proc("hostile", vcores=2)
    queue = proc.queue("orders")
    proc.on("order")(lambda ev: notes(ev.arg1))
    with hostile(proc) as supervisor:
        queue.send("order", arg1=1)
        notes.wait(1)
        with scribbled("hostile") as segment:
            segment.put_u32(segment.seg.procinfo + const.PI_STOP, 77)
        for vcore in range(2):
            proc.vcore(vcore).send("order", arg1=2)  # wakes it
        until(lambda: family(supervisor) in ([], [supervisor]), "the workers' end")
        proc.stop(timeout=LONG_S)


def test_the_pid_of_a_stranger_in_the_segment_gets_no_signal(notes: Notes, gate: Gate) -> None:
    """Who is attached, and named as a vcore's host with a pid of its own, is no worker: a starting supervisor adopts it not,
    and a stop does not end it."""
    proc = Proc("hostile", vcores=1)
    proc.queue("orders")
    proc.on("order")(lambda ev: None)

    def stranger() -> None:
        with upcall.connect("hostile") as remote:
            sender = remote.handle().thread().seg
            notes(sender.my_slot)
            gate.wait()

    with hostile(proc) as supervisor:
        pid = forked(stranger)
        ((slot,),) = notes.wait(1)
        with scribbled("hostile") as segment:
            workers = family(supervisor)[1:]
            os.kill(supervisor, signal.SIGKILL)
            ended(supervisor)
            os.close(proc._running.pidfd)  # type: ignore[union-attr]
            proc._close_handle()
            proc._running = None
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
                until(lambda worker=worker: not Path(f"/proc/{worker}/fd/0").exists(), "its end")  # type: ignore[misc]
            word = segment.u64(slot_record_at(segment.seg, slot) + const.AS_WORD)
            name = name_of(slot, word & const.SLOT_GEN_MASK)
            segment.put_u64(vcpd_at(segment.seg, 0) + const.VCPD_HOST, name)
            assert open_host(segment, segment.attach(const.ROLE_READER), 0) is None
        proc.start()
        proc.stop("now", timeout=LONG_S)
        assert Path(f"/proc/{pid}/fd/0").exists()
        gate.open()
        assert ended(pid) == 0
