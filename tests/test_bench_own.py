"""upcall's own side of `upcall bench`, and the command: every row does its job, and a run leaves nothing behind.

No time is asserted here: these are tests of the measuring, not measurements.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from upcall.bench import own, run
from upcall.bench.bars import BARS, verdicts
from upcall.bench.measure import Placing
from upcall.bench.own.running import new_proc, started
from upcall.bench.sample import ROWS, Sample
from upcall.cli.bench import bench
from upcall.host.segment import folder

TINY = 0.001
(OWN,) = own.systems()


def sample(row: str, system: str, value: float) -> Sample:
    return Sample(row, system, ROWS[row].unit, value, None, 1, "sender cpu0, receiver cpu1", "")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("row", list(OWN.rows()))
def test_own_rows(row: str) -> None:
    if row == "roundtrip-polling" and Placing.of().shared:
        pytest.skip("two vcores that spin need two CPUs")
    before, allowed = descriptors(), os.sched_getaffinity(0)
    found = OWN.rows()[row](TINY)
    assert found.measured, found.note
    assert (found.row, found.system, found.unit, found.runs) == (row, "upcall", ROWS[row].unit, 1)
    assert "cpu" in found.pinning
    assert found.note
    assert found.median >= 0 if row == "idle-cpu" else found.median > 0
    assert found.p99 is None or found.p99 >= found.median
    assert (descriptors(), os.sched_getaffinity(0)) == (before, allowed)
    assert not list(folder().iterdir())


def test_every_row_has_an_own_measurement() -> None:
    assert set(OWN.rows()) == set(ROWS)


def test_a_process_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upcall.bench.own.running.STOP_S", 0.3)
    proc = new_proc()
    proc.queue("work")
    proc.on("stick")(lambda event: time.sleep(1000))
    with started(proc, Placing.of().receiver):
        proc.queue("work").send("stick")
        time.sleep(0.2)
    assert not list(folder().iterdir())


# ---- the bars -----------------------------------------------------------------------------------------------------


def test_bars_are_of_rows_and_of_systems_that_exist() -> None:
    assert {bar.row for bar in BARS} <= set(ROWS)
    assert {bar.times for bar in BARS if bar.times} <= set(run.systems())


def test_an_absolute_bar() -> None:
    (verdict,) = verdicts([sample("send-message", "upcall", 80.0)])
    assert (verdict.measured, verdict.bar, verdict.met, verdict.goal_met) == (80.0, 100, True, False)
    (verdict,) = verdicts([sample("events-1-1", "upcall", 3e6)])
    assert (verdict.met, verdict.goal_met) == (False, False)


def test_a_bar_that_is_a_ratio_of_the_same_run() -> None:
    (verdict,) = verdicts([sample("interrupt", "upcall", 24.0), sample("interrupt", "signal", 20.0)])
    assert (verdict.measured, verdict.unit, verdict.met, verdict.goal_met) == (1.2, "x signal", True, False)


@pytest.mark.parametrize("other", [[], [sample("interrupt", "signal", math.nan)]], ids=["left out", "failed"])
def test_a_ratio_to_what_was_not_measured_is_no_verdict(other: list[Sample]) -> None:
    (verdict,) = verdicts([sample("interrupt", "upcall", 24.0), *other])
    assert (verdict.measured, verdict.met, verdict.goal_met) == (None, None, None)


def test_a_row_that_failed_is_no_verdict() -> None:
    (verdict,) = verdicts([sample("send-bit", "upcall", math.nan)])
    assert (verdict.measured, verdict.met) == (None, None)


def test_the_best_peer_with_a_message_may_be_a_tenth_faster() -> None:
    row = "wake-parked"
    mine, eventfd, pipe = sample(row, "upcall", 60.0), sample(row, "eventfd", 20.0), sample(row, "pipe", 50.0)
    (verdict,) = verdicts([mine, eventfd, pipe])  # an eventfd carries no message; a parked pipe may be 1.2 as fast
    assert (verdict.peer, verdict.measured, verdict.bar, verdict.met) == ("pipe", 1.2, 1.2, True)
    row = "events-1-1"
    found = verdicts([sample(row, "upcall", 5e6), sample(row, "pipe", 6e6), sample(row, "pyzmq", 1e6)])
    assert [(v.peer, v.met) for v in found] == [(None, True), ("pipe", False)]


def test_a_sleeping_worker_is_measured_by_a_pipe_between_two_cpus() -> None:
    row = "task-parked"
    (verdict,) = verdicts([sample(row, "upcall", 60.0), sample(row, "pipe", 20.0), sample(row, "pipe apart", 50.0)])
    assert (verdict.unit, verdict.measured, verdict.met) == ("x pipe apart", 1.2, True)


def test_passes_are_merged_by_their_medians() -> None:
    values = [(30.0, 90.0), (10.0, 50.0), (math.nan, None), (20.0, 70.0)]
    passes = [Sample("send-bit", "x", "ns", a, b, 5, "cpu0", "") for a, b in values]
    found = run.merged(passes)
    assert (found.median, found.p99, found.runs) == (20.0, 70.0, 15)
    failed = run.merged([passes[2]])
    assert not failed.measured


# ---- the command --------------------------------------------------------------------------------------------------


def test_json() -> None:
    arguments = ["--scale", str(TINY), "--rows", "send-bit, idle-cpu", "--systems", "upcall,eventfd", "--json"]
    done = CliRunner().invoke(bench, arguments)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report) == {"machine", "scale", "rows", "verdicts"}
    send_bit, idle = report["rows"]
    assert (send_bit["name"], idle["name"]) == ("send-bit", "idle-cpu")
    assert [s["system"] for s in send_bit["samples"]] == ["upcall", "eventfd"]
    assert send_bit["samples"][0]["upcall_is_times_better"] is None
    assert send_bit["samples"][1]["upcall_is_times_better"] > 0
    assert [v["row"] for v in report["verdicts"]] == ["send-bit", "idle-cpu"]
    assert "[1/3] send-bit: upcall" in done.stderr


def test_tables() -> None:
    done = CliRunner().invoke(bench, ["--scale", str(TINY), "--rows", "interrupt", "--systems", "upcall,signal"])
    assert done.exit_code == 0, done.output
    for text in ("interrupt, us: ", "signal", "sender", "Figures to reach", "x signal"):
        assert text in done.stdout


def test_list() -> None:
    done = CliRunner().invoke(bench, ["--list"])
    assert done.exit_code == 0
    assert all(name in done.stdout for name in (*ROWS, "upcall", "pyzmq"))
    as_json = json.loads(CliRunner().invoke(bench, ["--list", "--json"]).stdout)
    assert list(as_json["rows"]) == list(ROWS)
    assert as_json["systems"]["upcall"] is None


@pytest.mark.parametrize(("option", "what"), [("--rows", "row"), ("--systems", "system")])
def test_an_unknown_name_is_an_error_that_lists_the_known(option: str, what: str) -> None:
    done = CliRunner().invoke(bench, [option, "send-bit-not"])
    assert isinstance(done.exception, ValueError)
    assert str(done.exception).startswith(f"no {what} 'send-bit-not' (there are: ")


def test_ctrl_c_leaves_nothing(tmp_path: Path, upcall_dir: Path) -> None:
    program = "from upcall.cli.bench import bench; bench()"
    running = subprocess.Popen(
        [sys.executable, "-c", program, "--rows", "idle-cpu,send-bit", "--systems", "upcall"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(upcall_dir.glob("upcall-bench-*/segment")):
        time.sleep(0.01)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 1
    assert err.endswith("Aborted!\n")
    assert not list(upcall_dir.iterdir())
