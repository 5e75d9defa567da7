"""upcall's own scenarios: each holds, as far as it says that it was explored; and seeded wrong variants of the protocol are
found by them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from upcall.check import door, interp
from upcall.check.explore import Explorer
from upcall.check.plan import Plan, Scenario
from upcall.check.program import HUB
from upcall.check.rewrite import compiled
from upcall.check.scenarios import CASES, Case, jobs
from upcall.check.verdict import Limits, Verdict

WHOLE = [(name, model) for name, case in CASES.items() for model in case.models if case.preemptions is None]
BOUNDED = [(name, "sc") for name, case in CASES.items() if case.preemptions is not None]


def explored(case: Case, model: str, preemptions: int | None) -> Verdict:
    plan = Plan(case.name, case.lay_out)
    try:
        limits = Limits(preemptions=preemptions, seconds=600)
        verdict: Verdict = Explorer(plan, model, case.deaths, case.stops, limits).run()
    finally:
        plan.close()
    return verdict


@pytest.mark.parametrize(("name", "model"), WHOLE)
def test_holds_in_every_run(name: str, model: str) -> None:
    verdict = explored(CASES[name], model, None)
    assert verdict.ok, verdict.violation
    assert verdict.complete, verdict.why


@pytest.mark.parametrize(("name", "model"), BOUNDED)
def test_holds_with_one_switch_fewer_than_upcall_check_explores(name: str, model: str) -> None:
    bound = max(0, (CASES[name].bound(model) or 0) - 1)
    verdict = explored(CASES[name], model, bound)
    assert verdict.ok, verdict.violation
    assert verdict.why == f"every run with at most {bound} preemption(s)"


@pytest.mark.parametrize("name", [name for name in CASES if "source" in name])
def test_the_table_of_sources_is_read_in_order_on_weak_memory(name: str) -> None:
    """A reader once took the fields of a record's next life for a source's own, and a watcher an old record for what the
    new number of changes stood for."""
    verdict = explored(CASES[name], "ra", None)
    assert verdict.ok, verdict.violation
    assert verdict.complete, verdict.why


def test_every_case_says_what_it_is_about_and_what_it_checks() -> None:
    for case in CASES.values():
        assert case.about.endswith("."), case.name
        assert case.promises, case.name
        assert all(promise in {f"G{i}" for i in range(1, 13)} for promise in case.promises), case.name


def test_the_default_set_has_every_case() -> None:
    assert {job.scenario for job in jobs(("sc", "tso"), 1.0)} == set(CASES)


# ---- seeded wrong variants -------------------------------------------------------------------------------------------


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes scenarios run on a protocol in one of whose files a text is replaced."""

    def use(file: str, right: str, instead: str) -> None:
        def transform(tree: ast.Module, filename: str) -> CodeType:
            if filename.endswith(file):
                text = Path(filename).read_text()
                assert text.count(right) == 1, f"{file} has changed: {right!r} is there {text.count(right)} times"
                tree = ast.parse(text.replace(right, instead), filename)
            return compiled(tree, filename)

        life = interp.load(door.make(HUB.ask), "upcall_wrong", transform)
        monkeypatch.setattr(Scenario, "protocol", lambda s: life)

    yield use
    interp.unload("upcall_wrong")


POST = """    status = post_ev_msg(s, mbox, msg, ev_flags)
    if status != OK:
        return status
    # Message before notif_pending: pairs with `handle_events`, which clears pending, fences, then looks into the
    # mailboxes. The other way round, a vcore could clear pending, find nothing, and sleep on the message.
    wmb()
    str32(s.mem, vcpd_at(s, vcoreid) + VCPD_NOTIF_PENDING, 1)
    return OK
"""
CLAIMED = "    if state == PAGE_CLAIMED and name_is_dead(s, w >> 32):\n"
WHOSE = """\
        # The claimer died before or after it linked the page: the mailbox itself knows. PG_MBOX is written before the
        # link, so an unwritten or hostile one only means that nothing leads here. Read once the claimer is dead: from an
        # earlier look it could still have written it, and linked the page.
        mbox = ld64(s.mem, at + PG_MBOX)
"""
SEEDED = {
    "pending before the message": (
        "kern/event.py",
        POST,
        "    str32(s.mem, vcpd_at(s, vcoreid) + VCPD_NOTIF_PENDING, 1)\n    return post_ev_msg(s, mbox, msg, ev_flags)\n",
        "one_sends_awake_private_without_ipi",
        "sc",
        "G2",
    ),
    "no second look at pending": (
        "kern/proc.py",
        "            if cas64(s.mem, at, offline, vc_next(offline, VC_STARTING, s.me)):\n"
        "                vcore_online(s, vcoreid)\n"
        "            return False\n",
        "            pass\n",
        "one_sends_awake_private",
        "sc",
        "G2",
    ),
    "ready before the contents": (
        "kern/ucq.py",
        "    fill_slot(s, at, msg)\n    # READY is exchanged,",
        "    xchg64(s.mem, at + SL_WORD, word(READY, where >> 32, s.me))\n"
        "    fill_slot(s, at, msg)\n    # READY is exchanged,",
        "page_turns",
        "sc",
        "G3",
    ),
    "no fence in enable_notifs": (
        "parlib/vcore.py",
        "    # On, before the look at pending: pairs with the fence in `proc_notify`, pending first, then notif_disabled.\n"
        "    mb()\n",
        "",
        "user_code_to_the_vcore",
        "tso",
        "G2",
    ),
    "the head leaves a page whose link is not frozen": (
        "kern/ucq.py",
        "if link == after and not cas64(s.mem, page_at(s, page) + PG_NEXT, link, link | LINK_LEAVING):",
        "if False:",
        "one_unlinks_and_the_head_passes",
        "sc",
        "page",
    ),
    "a span that is looked at has no class": (
        "kern/arena.py",
        "mine = word(SPAN_LEAVING | (c << 4), gen, s.me)",
        "mine = word(SPAN_CLAIMED, gen, s.me)",
        "block_of_the_dead",
        "sc",
        "left behind",
    ),
    "whose page it is before its claimer is dead": (
        "kern/pages.py",
        CLAIMED + WHOSE,
        "    mbox = ld64(s.mem, at + PG_MBOX)\n" + CLAIMED,
        "scavenged_while_its_claimer_links",
        "sc",
        "is free, and in a mailbox",
    ),
}


@pytest.mark.parametrize("variant", SEEDED)
def test_a_wrong_variant_is_found(wrong: Any, variant: str) -> None:
    file, right, instead, name, model, says = SEEDED[variant]
    wrong(file, right, instead)
    found = explored(CASES[name], model, 2).violation
    assert found is not None
    assert says in found.what
