"""`upcall check`: scenarios of upcall's own and of others, stories, saved violations."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from upcall.check import explored
from upcall.check.runner import about

WRONG = '''
from upcall.check import scenario


@scenario
def store_buffering(s):
    """Each says that it is there, then looks for the other."""
    x, y = s.word("x"), s.word("y")

    @s.actor
    def one():
        x.store(1)
        s.note("one", y.load())

    @s.actor
    def two():
        y.store(1)
        s.note("two", x.load())

    @s.at_end
    def check(state):
        assert not (state.count("one", 0) and state.count("two", 0)), "neither saw the other"
'''


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    return path


def check(*args: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "upcall.cli", "check", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def test_upcalls_own_scenario() -> None:
    done = check("one_sends_usual", "--json")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"2 exploration\(s\) in [\d.]+ s: [\d,]+ states, [\d,]+ accesses, [\d,]+ times code ran for one; "
        r"accesses/s/core: sc [\d,]+, tso [\d,]+$",
        done.stderr,
    )
    found = json.loads(done.stdout)
    assert [(each["verdict"]["model"], each["verdict"]["complete"]) for each in found] == [("sc", True), ("tso", True)]
    assert all(each["verdict"]["states"] > 1000 for each in found)


def test_a_broken_promise_is_a_story(wrong: Path, tmp_path: Path) -> None:
    done = check(wrong, "--html", tmp_path / "story.html")
    assert done.returncode == 1
    assert "store_buffering, tso:" in done.stdout
    assert "store_buffering, sc:" not in done.stdout
    assert "x = 1, into its buffer" in done.stdout
    assert "neither saw the other" in done.stdout
    page = (tmp_path / "story.html").read_text()
    assert "neither saw the other" in page
    assert "http" not in page  # self-contained


def test_a_saved_violation_is_told_again(wrong: Path, tmp_path: Path) -> None:
    told = check(wrong, "--save", tmp_path / "found").stdout
    saved = tmp_path / "found" / "store_buffering-tso.json"
    again = check("--replay", saved)
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() in told
    assert again.stderr == ""
    kept = json.loads(saved.read_text())
    kept["made_from"]["python"] = "2.7.18"
    saved.write_text(json.dumps(kept))
    assert "changed since it was saved: python: 2.7.18 then" in check("--replay", saved).stderr


def test_fewest_switches() -> None:
    from upcall.check import runner
    from upcall.check.plan import SCENARIOS, Scenario

    def lost(s: Scenario) -> None:
        word = s.word("word")

        def adds() -> None:
            word.store(word.load() + 1)

        s.actor(adds, name="one")
        s.actor(adds, name="two")
        s.at_end(lambda state: _is(word.get(state), 2))

    def _is(found: int, wanted: int) -> None:
        assert found == wanted, f"{found} of {wanted}"

    SCENARIOS["lost"] = lost
    try:
        result = runner.run(runner.Job("lost"))
    finally:
        del SCENARIOS["lost"]
    assert result.switches == 1
    assert result.story is not None
    assert [row.actor for row in result.story.rows if row.seen] in ([0, 1, 1, 0], [1, 0, 0, 1])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nothing"], "no scenario 'nothing'"),
        (["/nowhere/at/all.py"], "no such file"),
        (["--replay", "BAD"], "no saved violation"),
        (["EMPTY"], "registers no scenario"),
    ],
)
def test_errors_are_one_line(args: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "empty.py").write_text("")
    names = {"BAD": str(tmp_path / "bad.json"), "EMPTY": str(tmp_path / "empty.py")}
    done = check(*(names.get(arg, arg) for arg in args))
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_was_explored_is_a_table_with_a_row_for_each_scenario(tmp_path: Path) -> None:
    """Rows of scenarios that a run does not explore stay; with --all a group's name stands for its scenarios."""
    page = tmp_path / "explored.md"
    assert check("one_sends_usual", "--write", page).returncode == 0
    (before,) = explored.read(page).values()
    cells = before.split(" | ")
    assert cells[0] == "| `one_sends_usual`"
    assert cells[2:4] == ["0", "0"]
    assert all(re.fullmatch(r"complete, [\d,]+", cell) for cell in cells[4:6])
    assert check("--all", "litmus", "--write", page).returncode == 0
    rows = explored.read(page)
    assert rows.pop("one_sends_usual") == before
    assert set(rows) == {name for group, name, _ in about() if group == "litmus"}
    assert rows["sb"].endswith("| broken | broken |"), "store buffering: of sc alone not to be seen"
    assert f"of {1 + len(rows)} scenarios" in page.read_text()


def test_with_all_a_scenario_that_is_not_there_is_an_error() -> None:
    """It once explored nothing, and was content."""
    done = check("--all", "litmos")
    assert done.returncode == 1
    assert "no scenario 'litmos': did you mean litmus" in done.stderr


def test_the_page_of_what_was_explored_has_every_scenario() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "explored.md"
    rows = explored.read(page)
    there = {name for _, name, _ in about()}
    assert set(rows) == there, "run upcall check --all SCENARIO --write docs/explored.md"
    assert explored.page([], rows) == page.read_text()
    assert "BROKEN" not in page.read_text()
