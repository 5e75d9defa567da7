"""Many explorations in a time that they share: shares, verdicts of what was cut short, and how they stand meanwhile."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from upcall.check import runner, running
from upcall.check.runner import Job, Result
from upcall.check.running import Progress, Run, Standing, run_all
from upcall.check.verdict import Verdict
from upcall.cli.standing import standing, whole

NAMES = ("page_turns", "one_sends_usual", "polled_usual", "unlinkers_die_and_stop")


def some(seconds: float = 60.0) -> list[Job]:
    own = {job.scenario: job for job in runner.own_jobs(("sc",), seconds)}
    return [replace(own[name], deepen=True) for name in NAMES]


def soon() -> Result:
    """A result of an exploration that took no time."""
    return Result(Job("soon"), Verdict("soon", "sc", 0, 0, complete=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_tiny_budget_ends_with_honest_verdicts(workers: int) -> None:
    results = list(run_all(some(), workers, 0.4))
    assert {result.job.scenario for result in results} == set(NAMES)
    for result in results:
        assert result.job.seconds < 0.4
        assert result.ok
        assert result.verdict.states > 0
        covered = result.said == "complete" or result.said.startswith("every run with at most ")
        assert covered or result.said.endswith(", before every run without a preemption was seen")


def test_not_even_bound_0_is_said() -> None:
    result = runner.run(replace(some(1e-6)[3], deepen=True))
    assert result.said == "stopped after 1e-06 s, before every run without a preemption was seen"
    assert not result.verdict.complete


def test_what_is_not_complete_in_most_of_its_time_is_deepened() -> None:
    result = runner.run(replace(some(1.0)[1], deaths=2))  # far more than a second's worth
    assert not result.verdict.complete
    assert result.said.startswith(("every run with at most ", "stopped after 1 s, before every run without"))


def test_what_ends_early_leaves_its_share_to_the_others() -> None:
    run = Run([Job(f"job {i}", seconds=1000) for i in range(4)], 1, 1000.0)
    assert run._next(0).seconds <= 250
    run._ended(0, soon())
    assert run._next(0).seconds > 300


def test_what_is_to_be_complete_gets_the_larger_share() -> None:
    run = Run([Job("bounded", seconds=1000, preemptions=1), Job("whole", seconds=1000)], 1, 1000.0)
    assert 700 < run._next(0).seconds <= 750


def test_what_runs_keeps_what_it_was_promised() -> None:
    run = Run([Job(f"job {i}", seconds=1000) for i in range(3)], 2, 900.0)
    assert run._next(0).seconds <= 600
    assert run._next(1).seconds <= 601
    run._ended(0, soon())
    assert run._next(0).seconds <= 900


def test_a_share_is_no_longer_than_an_explorations_own_limit_and_bounded_ones_come_last() -> None:
    run = Run([Job("bounded", preemptions=2), Job("whole", seconds=7.0)], 1, 1000.0)
    first = run._next(0)
    assert (first.scenario, first.seconds) == ("whole", 7.0)


def test_what_was_cut_short_is_explored_again_with_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """`upcall check --all` once ended after 12 of its 50 minutes, with 47 explorations that had been cut short."""
    needs = {"soon": 0.0, "later": 50.0, "never": 1000.0, "beyond": 1000.0}
    tried: list[tuple[str, float]] = []

    def explored(job: Job, told: object) -> Result:
        tried.append((job.scenario, job.seconds))
        short = job.seconds < needs[job.scenario]
        # It never comes as far as at first: what is said in the end is the best.
        covered = 3 - len(tried) if job.scenario == "never" else 0
        return Result(job, Verdict(job.scenario, "sc", 0, 0, complete=not short, covered=covered, cut_short=short))

    monkeypatch.setattr(running, "run", explored)
    jobs = [Job(name, seconds=20.0 if name == "beyond" else 90.0) for name in needs]
    results = {result.job.scenario: result for result in run_all(jobs, 1, 100.0)}
    assert [name for name, _ in tried] == ["soon", "later", "never", "beyond", "later", "never"]
    assert 20 < dict(tried[:4])["later"] < 35
    assert 80 < dict(tried)["later"] <= 90
    assert [results[name].verdict.complete for name in needs] == [True, True, False, False]
    assert results["never"].verdict.covered == 0, "of its first time"
    assert results["beyond"].job.seconds == 20, "all that it may have: not tried again"


def test_it_is_told_how_explorations_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "EVERY_S", 0.0)
    told: list[Progress] = []
    list(run_all(some()[:2], 1, 2.0, told.append))
    assert {each.job.scenario for progress in told for each in progress.running} == set(NAMES[:2])
    assert any(each.states > 0 and each.speed > 0 for progress in told for each in progress.running)
    assert {progress.done for progress in told} == {0, 1}
    assert all(progress.left is not None and progress.left <= 2.0 for progress in told)


def test_workers_tell_how_their_explorations_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "EVERY_S", 0.01)
    told: list[Progress] = []
    assert len(list(run_all(some()[:2], 2, 2.0, told.append))) == 2
    assert any(each.states > 0 for progress in told for each in progress.running)


def test_the_time_left_is_said_to_be_an_estimate() -> None:
    at = Standing(Job("page_turns", "tso"), 123_456, 98_765.4, 2, 3.0, 9.0)
    progress = Progress([at], 3, 8, 61.0, 130.0)
    assert whole(progress) == "3 of 8 done in 1:01, about 2:10 left (an estimate)"
    shown = io.StringIO()
    Console(file=shown, width=120).print(standing(progress))
    assert "page_turns" in shown.getvalue()
    assert "98,765" in shown.getvalue()
    assert "2 preemption(s)" in shown.getvalue()
