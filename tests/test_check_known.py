"""The checker on programs whose verdicts are known: litmus tests under each memory model, classic algorithms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from test_check_command import check
from upcall.check import runner
from upcall.check.classics import KNOWN, Known
from upcall.check.classics.known import MODELS
from upcall.check.explore import Explorer
from upcall.check.plan import Plan, Scenario
from upcall.check.scenarios import CASES
from upcall.check.story import tell
from upcall.check.verdict import Limits, Verdict
from upcall.errors import UpcallError


def explored(known: Known, model: str) -> Verdict:
    plan = Plan(known.name, known.lay_out)
    try:
        verdict: Verdict = Explorer(plan, model, known.deaths).run()
    finally:
        plan.close()
    return verdict


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", KNOWN)
def test_the_verdict_is_the_known_one(name: str, model: str) -> None:
    verdict = explored(KNOWN[name], model)
    if model in KNOWN[name].broken:
        assert verdict.violation is not None
    else:
        assert verdict.ok, verdict.violation
        assert verdict.complete


def test_every_known_program_says_what_it_is_about() -> None:
    for known in KNOWN.values():
        assert known.about.endswith((".", ":")), known.name


def test_the_tables_say_what_is_known() -> None:
    page = (Path(__file__).parents[1] / "docs" / "litmus.md").read_text()
    found = dict(re.findall(r"^\| (\w+) \|.*\| ((?:yes|no) \| (?:yes|no) \| (?:yes|no)) \|$", page, re.M))
    assert found == {
        name: " | ".join("yes" if model in known.broken else "no" for model in MODELS) for name, known in KNOWN.items()
    }


def test_a_known_violation_is_no_failure_of_the_command() -> None:
    done = check("mp", "--model", "ra")
    assert done.returncode == 0, done.stderr
    assert "broken, as it must be" in done.stdout


def test_an_older_value_is_told_as_one() -> None:
    plan = Plan("mp", KNOWN["mp"].lay_out)
    explorer = Explorer(plan, "ra")
    found = explorer.run().violation
    assert found is not None
    said = "\n".join(tell(explorer, found.moves).lines())
    plan.close()
    assert re.search(r"data is 0\n *\(does not see writer's data = 1\)", said)
    assert "seen: flag=1 data=0" in said


def test_random_runs_find_what_needs_few_orderings_and_can_be_told_again() -> None:
    result = runner.run(runner.Job("sb", "tso", runs=500, depth=2))
    assert result.story is not None
    assert "seen: one=0 two=0" in result.story.broken
    again = runner.run(runner.Job("sb", "tso", runs=500, depth=2))
    assert again.verdict.moves == result.verdict.moves


def test_random_runs_that_find_nothing_say_what_they_are() -> None:
    result = runner.run(runner.Job("sb_mb", "tso", runs=100, seed=7, depth=2))
    assert result.ok
    assert not result.verdict.complete
    assert re.match(
        r"100 random runs \(seed 7\), no proof: .* 2 ordering\(s\) .* at least 1 in \d+$", result.verdict.why
    )


@pytest.mark.parametrize("fate", ["deaths", "stops"])
def test_random_runs_have_deaths_and_stops(fate: str) -> None:
    result = runner.run(runner.Job("ticket_lock_of_the_dead", runs=300, **{fate: 1}))
    assert result.verdict.violation is not None
    assert "waits for ever" in result.verdict.violation.what


def test_a_bound_is_reached_by_way_of_the_lower_ones() -> None:
    """So that when time runs out it is known what was explored to its end; and the fewest switches are found first."""
    whole = runner.run(runner.Job("iriw", preemptions=1))
    assert whole.verdict.why == "every run with at most 1 preemption(s)"
    lost = runner.run(runner.Job("treiber_stack_without_tags", preemptions=5))
    assert lost.switches == 1
    assert lost.verdict.violation is not None


def test_what_is_not_deterministic_is_found_by_running_a_sample_again() -> None:
    calls = [0]

    def drifts(s: Scenario) -> None:
        word = s.word("word")
        calls[0] += 1
        first = calls[0] == 1

        def body() -> None:
            word.add(1 if first else 2)

        s.actor(body, name="drifter")

    with pytest.raises(UpcallError, match="actor 'drifter' is not deterministic") as refused:
        runner.explore(runner.Job("drifts"), drifts)
    line = drifts.__code__.co_firstlineno + 6
    assert str(refused.value).count(f"at {__file__}:{line}") == 2  # where it asks the one, and where it asked the other


def test_places_of_a_vcore_that_polls_are_merged_only_where_its_future_is_the_same() -> None:
    """`waker_of_a_poll_dies`, without a bound: where another history led to a known place, it asks the same there."""
    case = CASES["waker_of_a_poll_dies"]
    plan = Plan(case.name, case.lay_out)
    try:
        Explorer(plan, "sc", case.deaths, 0, Limits(states=8000)).run()
        for program in plan.programs:
            program.recheck(60.0, most=300)
    finally:
        plan.close()


def test_a_place_taken_for_another_is_found_and_both_lines_are_named() -> None:
    def moody(s: Scenario) -> None:
        word = s.word("word")

        def body() -> None:
            if word.load():
                word.store(1)
            else:
                word.store(2)

        s.actor(body, name="one")

    plan = Plan("moody", moody)
    try:
        Explorer(plan).run()
        root = plan.programs[0].root
        stores = plan.programs[0].after(root, 1)
        root.edges[0] = stores  # as if what follows 0 were the place that follows 1
        del root.edges[1]
        with pytest.raises(UpcallError, match="actor 'one' is not deterministic") as refused:
            plan.programs[0].recheck(60.0)
    finally:
        plan.close()
    first = moody.__code__.co_firstlineno
    assert f"at {__file__}:{first + 7} where" in str(refused.value)
    assert f"at {__file__}:{first + 5}." in str(refused.value)


def test_all_is_every_model_two_deaths_and_what_is_known() -> None:
    jobs = runner.all_jobs(1.0)
    assert {job.model for job in jobs} == set(MODELS)
    assert {job.scenario for job in jobs} == set(CASES) | set(KNOWN)
    assert all(job.deaths == 2 for job in jobs if job.scenario in CASES and CASES[job.scenario].deaths)
