"""The checker on programs whose verdicts are known: litmus tests under each memory model, classic algorithms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from test_check_command import check
from upcall.check.classics import KNOWN, Known
from upcall.check.classics.known import MODELS
from upcall.check.explore import Explorer
from upcall.check.plan import Plan
from upcall.check.story import tell
from upcall.check.verdict import Verdict


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
