"""Exhibits: what is known to break breaks so, what is known to hold holds; and what holds would break without its fences
and second looks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from upcall.check.exhibits import EXHIBITS, SHOWINGS, showings
from upcall.check.exhibits.seed import event, proc, user
from upcall.check.exhibits.seed.words import head, insert_head, packed, remove, unpacked
from upcall.check.explore import Explorer
from upcall.check.plan import Plan, Scenario
from upcall.check.verdict import Limits, Verdict
from upcall.errors import UpcallError

KNOWN = [(name, model) for name, showing in SHOWINGS.items() for model in showing.models]


def explored(name: str, model: str, preemptions: int | None = None) -> Verdict:
    showing = SHOWINGS[name]
    plan = Plan(name, showing.lay_out)
    try:
        limits = Limits(preemptions=showing.bounds.get(model, preemptions), seconds=600)
        verdict: Verdict = Explorer(plan, model, showing.deaths, showing.stops, limits).run()
    finally:
        plan.close()
    return verdict


@pytest.mark.parametrize(("name", "model"), KNOWN)
def test_it_comes_out_as_known(name: str, model: str) -> None:
    showing = SHOWINGS[name]
    bound = 1 if model != "sc" and model not in showing.broken else None  # complete they take a minute
    verdict = explored(name, model, bound)
    broken = verdict.violation.what if verdict.violation is not None else None
    assert showing.unexpected(model, broken, verdict.complete or bound is not None) == "", broken


def test_every_exhibit_shows_something_right_and_something_wrong() -> None:
    for exhibit in EXHIBITS:
        shown = showings(exhibit)
        assert {bool(showing.broken) for showing in shown} == {True, False}
        assert all(showing.about for showing in shown)
        assert all(bool(showing.says) == bool(showing.broken) for showing in shown)


def test_every_scenario_is_told_of_in_the_docs() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "findings.md").read_text(encoding="utf-8")
    assert [name for name in SHOWINGS if f"`{name}`" not in page] == []


def test_an_unknown_exhibit_names_the_known() -> None:
    with pytest.raises(UpcallError, match="no exhibit 'seeds': there are seed, notified-flag"):
        showings("seeds")


@pytest.mark.parametrize(
    "name",
    ["seed_interrupts_user_code", "seed_single_core_sleep", "seed_spam_against_yield", "seed_two_wake_a_process"],
)
def test_without_full_fences_it_breaks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scenario, "mb", lambda s: None)
    violation = explored(name, "tso").violation
    assert violation is not None
    assert "lost" in violation.what


def test_without_the_second_look_at_the_flag_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(self: Any, v: int, msg: int, flags: int) -> bool:
        if self.can_msg_vcore(v):
            self.spam_vcore(v, msg, flags)
            return True
        return False

    monkeypatch.setattr(event.Sender, "try_spam_vcore", once)
    violation = explored("seed_spam_against_yield", "sc").violation
    assert violation is not None
    assert "lost" in violation.what


def test_without_the_yielders_second_look_at_pending_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaves(self: Any, v: int) -> bool:
        self.spin_lock()
        if self.p.vcpd[v].notif_pending.load():
            self.spin_unlock()
            return False
        remove(self.p.online, v)
        insert_head(self.p.inactive, v)
        self.p.vcpd[v].mapped.store(0)
        if self.add_vcores(-1) == 0:
            self.p.state.store(proc.WAITING)
        self.spin_unlock()
        return True

    monkeypatch.setattr(proc.Kernel, "proc_yield", leaves)
    violation = explored("seed_spam_against_yield", "sc").violation
    assert violation is not None
    assert "lost" in violation.what


def test_without_a_look_at_the_mail_of_one_that_gave_its_core_away_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user.Vcore, "steal", lambda self, v: None)
    violation = explored("seed_change_to_a_preempted_vcore", "sc").violation
    assert violation is not None
    assert "lost" in violation.what


def test_a_list_is_a_word() -> None:
    class Kept:
        value = packed((2, 0))

        def load(self) -> int:
            return self.value

        def store(self, value: int) -> None:
            self.value = value

    listed: Any = Kept()
    insert_head(listed, 1)
    assert (head(listed), unpacked(listed.value)) == (1, [1, 2, 0])
    remove(listed, 2)
    assert unpacked(listed.value) == [1, 0]
    remove(listed, 1)
    remove(listed, 0)
    assert head(listed) == -1


def check(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "upcall.cli", "check", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def test_the_command_says_what_was_known() -> None:
    done = check("--exhibit", "notified-flag", "--model", "sc")
    assert done.returncode == 0, done.stderr
    assert "yes, it is known to break" in done.stdout
    assert "yes, it is known to hold" in done.stdout
    assert "lost wake-up: 1 piece(s) of work wait" in done.stdout


def test_the_command_for_programs() -> None:
    done = check("--exhibit", "seed", "seed_round_robin_of_none", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [each["unexpected"] for each in found] == ["", "", ""]
    assert all("ZeroDivisionError" in each["broken"] for each in found)


def test_the_command_lists_exhibits() -> None:
    done = check("--exhibit", "list")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in [*EXHIBITS, *SHOWINGS])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--exhibit", "nothing"], "there are seed, notified-flag"),
        (["--exhibit", "seed", "seed_nothing"], "it has seed_spam_against_yield"),
    ],
)
def test_errors_name_the_way_out(args: list[str], said: str) -> None:
    done = check(*args)
    assert done.returncode != 0
    assert said in done.stderr
