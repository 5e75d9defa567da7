"""Scenarios of other people: what is wrong with one is said, with the way out."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from upcall.check import runner
from upcall.check.plan import SCENARIOS, Plan, Scenario, scenario
from upcall.check.rewrite import LOOPS
from upcall.errors import UpcallError


def explored(lay_out: Callable[[Scenario], object]) -> runner.Result:
    return runner.explore(runner.Job(lay_out.__name__), lay_out)


def refused(lay_out: Callable[[Scenario], object]) -> str:
    with pytest.raises(UpcallError) as refusal:
        explored(lay_out)
    return str(refusal.value)


def test_a_scenario_without_actors() -> None:
    def empty(s: Scenario) -> None:
        s.word("x")

    assert refused(empty) == "scenario empty has no actors: give it functions marked @s.actor"


def test_a_list_that_actors_share_and_change() -> None:
    def gossip(s: Scenario) -> None:
        x = s.word("x")
        seen: list[int] = []

        @s.actor
        def one() -> None:
            x.store(1)
            seen.append(1)

        @s.actor
        def two() -> None:
            if x.load():
                x.store(len(seen))

    said = refused(gossip)
    assert "scenario gossip: actors one and two share the list 'seen', and it was changed" in said
    assert "s.note" in said


def test_a_list_that_actors_share_and_only_read_is_fine() -> None:
    def words(s: Scenario) -> None:
        both = [s.word("x"), s.word("y")]

        @s.actor
        def one() -> None:
            both[0].add(1)

        @s.actor
        def two() -> None:
            both[1].add(both[0].load())

    assert explored(words).verdict.complete


def test_an_actor_that_does_not_do_the_same_each_time() -> None:
    def moody(s: Scenario) -> None:
        x, y = s.word("x"), s.word("y")
        asked = next(COUNT)

        @s.actor
        def one() -> None:
            y.load()
            x.store(asked)
            if y.load() == 0:
                x.load()
            else:
                y.store(7)

        @s.actor
        def two() -> None:
            x.load()
            y.store(1)
            x.load()

    said = refused(moody)
    assert "actor 'one' is not deterministic: run again it asks store (" in said
    assert "no clock, no random numbers" in said


COUNT = itertools.count()


def test_a_check_that_fails_itself_is_no_broken_promise() -> None:
    def typo(s: Scenario) -> None:
        s.actor(s.word("x").load, name="one")

        @s.at_end
        def check(state: Any) -> None:
            assert state.cuont("x")

    said = refused(typo)
    assert "scenario typo: its check check fails itself: AttributeError" in said
    assert "test_check_api.py:" in said


def test_a_layout_that_fails() -> None:
    def broken(s: Any) -> None:
        s.wrod("x")

    said = refused(broken)
    assert "scenario broken cannot be laid out: AttributeError" in said
    assert "test_check_api.py:" in said


def test_sleeping_while_laid_out() -> None:
    def early(s: Scenario) -> None:
        s.word("x").wait(0)

    assert "a scenario may not sleep while it is laid out" in refused(early)


def test_marking_keeps_what_a_function_has() -> None:
    def plain(s: Scenario) -> None:
        """About."""

    plain.pytestmark = ["kept"]  # type: ignore[attr-defined]
    try:
        made: Any = scenario(plain)
    finally:
        SCENARIOS.pop("plain")
    assert (made.__name__, made.__doc__, made.__module__, made.pytestmark) == ("plain", "About.", __name__, ["kept"])
    assert made.upcall_scenario


def test_changes_are_looked_for_in_what_functions_and_methods_reach() -> None:
    class Holder:
        def __init__(self, s: Scenario) -> None:
            self.check_key = "holder"
            self.word = s.word("x")

        def acts(self) -> None:
            self.word.add(1)

    def methods(s: Scenario) -> None:
        holder = Holder(s)
        s.actor(holder.acts, name="one")
        s.actor(holder.acts, name="two")

    plan = Plan("methods", methods)
    assert plan.shared_change() == ""
    plan.close()


# ---- the command -----------------------------------------------------------------------------------------------------

TWO = """
from upcall.check import scenario


@scenario
def first(s):
    s.actor(s.word("x").load, name="one")


@scenario
def second(s):
    s.actor(s.word("x").load, name="one")
"""

LOOP = """
from upcall.check import scenario


@scenario
def looping(s):
    for name in "ab":
        s.actor(s.word(name).load, name=name)
"""


def check(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "upcall.cli", "check", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def test_one_scenario_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    done = check(f"{tmp_path / 'two.py'}::second", "--model", "sc")
    assert done.returncode == 0, done.stderr
    assert "second (sc): complete" in done.stderr
    assert "first" not in done.stderr


def test_loops_of_a_file_that_is_loaded_again_count_once(tmp_path: Path) -> None:
    path = tmp_path / "loop.py"
    path.write_text(LOOP)
    try:
        runner.load(str(path))
        once = list(LOOPS[str(path)])
        path.write_text(f"# A line more.\n{LOOP}")
        runner.load(str(path))
        assert len(once) == 1
        assert LOOPS[str(path)] == [(once[0][0] + 1, once[0][1] + 1)]
    finally:
        del SCENARIOS["looping"]


def test_a_name_that_is_registered_already_is_found_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    try:
        assert runner.load(str(tmp_path / "two.py")) == ["first", "second"]
        assert runner.load(str(tmp_path / "two.py")) == ["first", "second"]
    finally:
        del SCENARIOS["first"], SCENARIOS["second"]


def test_a_file_may_have_classes_that_look_up_their_module(tmp_path: Path) -> None:
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass Item:\n    n: int\n\n"
    (tmp_path / "classes.py").write_text(head + TWO)
    try:
        assert runner.load(str(tmp_path / "classes.py")) == ["first", "second"]
    finally:
        del SCENARIOS["first"], SCENARIOS["second"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("two.py::third", "two.py registers no scenario 'third': it has first, second"),
        ("fails.py", "fails.py:3 cannot be imported: ZeroDivisionError: division by zero"),
        ("syntax.py", "syntax.py:1 cannot be imported: SyntaxError"),
        ("one_sends_usul", "no scenario 'one_sends_usul': did you mean one_sends_usual"),
    ],
)
def test_what_cannot_be_found_is_said_with_what_can(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    (tmp_path / "fails.py").write_text("import os\n\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("def (:\n")
    done = check(tmp_path / name if ".py" in name else name)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
