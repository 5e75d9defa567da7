"""`upcall storm --peer`: other systems under the same killer; and that losing and hanging are seen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from upcall.storm import peers, run_peers, tries
from upcall.storm.peers import Peer

NAMES = list(peers.peers())


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where channels put their files; and less patience with those that hang."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(tries, "PATIENCE_S", 1.0)


def rows(capsys: pytest.CaptureFixture[str], *names: str, count: int = 1, code: int = 0) -> list[dict[str, Any]]:
    assert run_peers(list(names), count, 1, as_json=True) == code
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["peers"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_peer_that_is_here_can_be_tried(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (row,) = rows(capsys, name)
    assert row["name"] == name
    if row["missing"]:
        assert "pip install 'upcall[bench]'" in row["missing"]
        assert row["tries"] == 0
        return
    (outcome,) = row["outcomes"]
    assert outcome["victim"] in ("sender", "receiver")
    assert outcome["sent"] > 0
    assert not list(tmp_path.iterdir())


def test_upcall_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows(capsys, "upcall", count=3)
    assert (row["tries"], row["hung"], row["lost"]) == (3, 0, 0)


class Pipe:
    """A channel of one pipe and messages of one size: what was read by a receiver that is killed is lost."""

    SIZE = 96

    def __init__(self, note: peers.Note, *, loses: int = 0, hangs: bool = False) -> None:
        self.loses, self.hangs, self.parent = loses, hangs, os.getpid()
        self.read, self.write = os.pipe()

    def sender(self) -> tuple[Callable[[bytes], object], Callable[[], object]]:
        return lambda message: os.write(self.write, message.ljust(self.SIZE)), peers.nothing

    def receive(self, receiver: int, note: peers.Note) -> None:
        count = 0
        while True:
            message = os.read(self.read, self.SIZE)
            count += 1
            if self.hangs and count > 500:
                signal.pause()
            if count != self.loses:
                note(receiver, message)

    def workers(self) -> None:
        return None

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


def with_pipe(monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    monkeypatch.setattr(tries, "peers", lambda: {"pipe": Peer("pipe", "", partial(Pipe, **how), 1)})


def test_what_is_lost_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with_pipe(monkeypatch, loses=50)
    (row,) = rows(capsys, "pipe")
    assert row["hung"] == 0
    assert 1 <= row["lost"] <= 3  # one of each receiver there was, and the one in the dead one's hands


def test_who_cannot_go_on_hangs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with_pipe(monkeypatch, hangs=True)
    (row,) = rows(capsys, "pipe")
    assert (row["hung"], row["lost_per_kill"]) == (1, None)
    assert row["outcomes"][0]["hung"] in ("a sender does not end", "a fresh sender's messages do not arrive")


def test_a_table_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with_pipe(monkeypatch)
    assert run_peers(["all"], 1, 1) == 0
    output = capsys.readouterr().out
    assert "0 of 1" in output
    assert "lost per kill" in output


def test_an_unknown_peer_is_an_error_that_names_those_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "upcall.cli", "storm", "--peer", "rabbits"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no peer 'rabbits': choose from upcall, mp.Queue")
