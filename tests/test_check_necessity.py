"""What each fence, owner test, look again and order of the protocol's sources is needed for: the table in docs/necessity.md
lists exactly what the sources have, and a sample of it is found again."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest
from click.testing import CliRunner

from test_check_command import check
from upcall import _life
from upcall.check import necessity
from upcall.check.argued import WHY
from upcall.check.plan import Scenario
from upcall.check.process import Process
from upcall.check.scenarios import CASES, Case
from upcall.check.sites import Site, all_sites, change
from upcall.cli.check import check as command

PAGE = Path(__file__).resolve().parents[1] / "docs" / "necessity.md"
SITES = {site.name: site for site in all_sites()}
ROWS = necessity.read(PAGE)
BY_THE_STEP_ITSELF = {("kern/pages.py", "claim_page"), ("kern/ucq.py", "want_room")}
"""What pairs there is the read-modify-write that does the work: nothing can be taken out."""
SAMPLE = sorted(name for name, row in ROWS.items() if row.scenario)[::12]


def test_the_page_lists_exactly_what_the_sources_have() -> None:
    missing, gone = sorted(set(SITES) - set(ROWS)), sorted(set(ROWS) - set(SITES))
    assert not missing, "not in docs/necessity.md: run upcall check --necessity PATTERN --write docs/necessity.md"
    assert not gone, "no longer in the sources: run upcall check --necessity PATTERN --write docs/necessity.md"


def test_what_no_scenario_shows_is_explained() -> None:
    unshown = {name for name, row in ROWS.items() if not row.scenario}
    assert unshown == set(WHY)


def test_the_page_gives_the_reasons_that_the_sources_give() -> None:
    page = PAGE.read_text()
    assert not [name for name, reason in WHY.items() if f"| {reason} |" not in page]


def test_stories_tell_of_functions_that_are_there() -> None:
    there = {("<lambda>", path.name) for path in Path(_life.ROOT).rglob("*.py")}
    for path in Path(_life.ROOT).rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        there |= {(node.name, path.name) for node in nodes if isinstance(node, ast.FunctionDef)}
    told = re.findall(r"up to (\S+) \((\w+\.py)[:\d]*\)", PAGE.read_text())
    assert len(told) > len(SITES)
    assert not [each for each in told if each not in there]


def test_every_argued_pair_has_a_place_in_the_table() -> None:
    """Every comment that says what something pairs with stands in a function of which something is taken out."""
    functions = {(site.file, site.function) for site in SITES.values()} | BY_THE_STEP_ITSELF
    silent = []
    for folder in ("kern", "parlib"):
        for path in sorted((Path(_life.ROOT) / folder).glob("*.py")):
            with path.open() as text:
                lines = [
                    token.start[0]
                    for token in tokenize.generate_tokens(text.readline)
                    if token.type == tokenize.COMMENT and "pairs with" in token.string
                ]
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    inside = [line for line in lines if node.lineno <= line <= (node.end_lineno or 0)]
                    if inside and (f"{folder}/{path.name}", node.name) not in functions:
                        silent.append(f"{path.name}:{inside[0]}")
    assert not silent


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_each_place_can_be_taken_out(site: Site) -> None:
    text = (Path(_life.ROOT) / site.file).read_text()
    tree = ast.parse(text)
    change(tree, site)
    assert ast.unparse(tree) != ast.unparse(ast.parse(text))


@pytest.mark.parametrize("name", SAMPLE)
def test_without_it_a_scenario_fails(name: str) -> None:
    row = ROWS[name]
    order = [(row.scenario, row.model, bound) for bound in necessity.BOUNDS]
    assert necessity.look(SITES[name], order, 60.0).needed


def test_a_scenario_that_fails_anyway_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_anyway(s: Scenario) -> None:
        p = Process(s)
        p.queue()
        p.sender("sender", 1)

        @s.at_end
        def nothing_was_sent(state: object) -> None:
            raise AssertionError

    monkeypatch.setitem(CASES, "fails_anyway", Case("fails_anyway", fails_anyway, ("G1",)))
    site, order = SITES[SAMPLE[0]], [("fails_anyway", "sc", 1)]
    assert not necessity.look(site, order, 60.0).needed
    monkeypatch.setattr(necessity, "holds", lambda *_: True)
    assert necessity.look(site, order, 60.0).needed


def test_the_command_says_what_breaks() -> None:
    done = check("--necessity", "parlib/watch.py:watch_sleeps: mb", "--model", "tso")
    assert done.returncode == 0, done.stderr
    assert "watcher_goes_to_sleep" in done.stdout
    assert "1 places: without 1 a scenario fails" in done.stderr


def test_where_the_table_says_nothing_all_scenarios_that_come_there_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(CASES) - {"watcher_goes_to_sleep", "page_turns"}:
        monkeypatch.delitem(CASES, name)
    site = SITES["parlib/watch.py:watch_sleeps: mb()"]
    outdated = {site.name: necessity.Row("", site.name, "page_turns", "tso")}
    for before in ({}, outdated):
        found = list(necessity.look_at_all([site], ("tso",), 60.0, 1, before))
        assert [(each.scenario, each.model) for each in found] == [("watcher_goes_to_sleep", "tso")]


def test_a_place_that_is_not_there_is_an_error() -> None:
    done = check("--necessity", "nothing_like_it")
    assert done.returncode == 1
    assert "nothing_like_it" in done.stderr


def test_a_place_has_ten_seconds_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def show(patterns: object, models: object, seconds: float | None, *rest: object) -> bool:
        given.append(seconds)
        return True

    monkeypatch.setattr("upcall.cli.necessity.show_necessity", show)
    for arguments in (["--necessity"], ["--necessity", "--all"], ["--necessity", "--seconds", "3"]):
        assert CliRunner().invoke(command, arguments).exit_code == 0
    assert given == [None, None, 3.0]
