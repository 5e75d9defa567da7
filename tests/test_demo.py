"""The demo on small input: it counts right, shows its numbers, and leaves nothing behind, whatever ends it."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pages import block, shape
from upcall import inspect
from upcall.demo import job, text
from upcall.demo.peers import PEERS

COMMAND = [sys.executable, "-m", "upcall.cli", "demo"]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo puts its files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_the_counts_are_equal(temporary: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--files", "8", "--vcores", "2", "--no-peers", "--json"], capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)
    groups = list(text.lines(text.source_files(8)))
    assert result["events"] == sum(map(len, groups))
    assert result["words"] == sum(len(line.split()) for group in groups for line in group)
    assert (result["equal"], result["senders"], result["files"]) == (True, 2, 8)
    assert [vcore["id"] for vcore in result["vcores"]] == [0, 1]
    assert sum(vcore["events"] for vcore in result["vcores"]) == result["events"]
    assert [other["what"] for other in result["others"]] == ["a plain loop in one process"]
    assert not list(temporary.iterdir())


def test_what_a_user_sees() -> None:
    done = subprocess.run([*COMMAND, "--files", "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(peer.what in done.stdout for peer in PEERS)
    shown = shape(block("README.md", "", "the counts are equal to a plain count"), digits=1)
    assert set(shape(done.stdout, digits=1)) == set(shown[:-1])  # too few lines here for what the last one says


def test_a_wrong_count_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(job.counting, "merged", lambda folder, vcores: Counter({b"lost": 1}))
    assert job.run(2, 2, peers=False) == 1
    assert "NOT EQUAL" in capsys.readouterr().out


def test_warnings_are_logged_again_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.counting, "merged", lambda folder, vcores: Counter({b"lost": 1}))
    job.run(2, 2, peers=False)
    assert logging.getLogger("upcall").getEffectiveLevel() == logging.WARNING


def test_the_counts_are_equal_though_workers_are_killed(temporary: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--files", "400", "--vcores", "2", "--kill", "--json"], capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["equal"]
    assert result["events"] == sum(map(len, text.lines(text.source_files(400))))
    assert result["kills"] > 0
    assert result["again"] <= result["redelivered"]
    assert not list(temporary.iterdir())


def test_a_line_that_was_written_twice_counts_once_and_half_a_record_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "0-1").write_bytes(b"0 0 2 a 1 b\n1 0\n2 0 1 c 1")
    (tmp_path / "1-2").write_bytes(b"2 1 1 c 1 d\n1 1\n")
    found = job.counting.journalled(tmp_path)
    assert found.counts == Counter({b"a": 2, b"b": 1, b"c": 1, b"d": 1})
    assert (found.lines, found.redelivered, found.again) == ({0, 1, 2}, 2, 1)


def test_what_a_user_sees_of_the_kills() -> None:
    done = subprocess.run([*COMMAND, "--files", "3", "--kill"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the counts are equal to a plain count" in done.stdout
    assert "workers killed" in done.stdout


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.what)
def test_peers_count_right(peer: object) -> None:
    timing = peer.run(text.source_files(2), 2)  # type: ignore[attr-defined]
    assert timing.equal
    assert timing.events == sum(map(len, text.lines(text.source_files(2))))


def test_ctrl_c_leaves_nothing(temporary: Path) -> None:
    """Segments and processes: the fixture `nothing_left` looks."""
    with subprocess.Popen([*COMMAND, "--no-peers"], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        while not any(process.total("handled") for process in inspect.snapshots()):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        assert running.stderr.read().splitlines()[1:] == ["stopped"]
        assert running.wait() == 130
    assert not list(temporary.iterdir())


def test_no_sources_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match="no source files"):
        text.source_files()
