"""The checker's engine on programs whose verdicts are known: store buffering, locks, lost wake-ups, deaths."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from upcall import _life
from upcall.check import door
from upcall.check.explore import Explorer
from upcall.check.place import frozen
from upcall.check.plan import Plan, Scenario, scenario
from upcall.check.verdict import Limits, State, Verdict
from upcall.errors import UpcallError


def test_the_door_is_whole() -> None:
    """Every name of the machine's door is one of the checker's."""
    tree = ast.parse((Path(_life.ROOT) / "machine" / "door.py").read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    assert names <= set(vars(door.make(lambda request: 0)))


def explored(lay_out: Callable[[Scenario], object], model: str = "sc", **options: Any) -> Verdict:
    plan = Plan(lay_out.__name__, lay_out)
    try:
        verdict: Verdict = Explorer(plan, model, **options).run()
    finally:
        plan.close()
    return verdict


def store_buffering(fence: bool) -> Callable[[Scenario], object]:
    def sb(s: Scenario) -> None:
        x, y = s.word("x"), s.word("y")

        @s.actor
        def one() -> None:
            x.store(1)
            if fence:
                s.mb()
            s.note("one", y.load())

        @s.actor
        def two() -> None:
            y.store(1)
            if fence:
                s.mb()
            s.note("two", x.load())

        @s.at_end
        def both(state: State) -> None:
            assert not (state.count("one", 0) and state.count("two", 0)), "both read the old value"

    return sb


@pytest.mark.parametrize(("model", "fence", "ok"), [("sc", False, True), ("tso", False, False), ("tso", True, True)])
def test_store_buffering(model: str, fence: bool, ok: bool) -> None:
    verdict = explored(store_buffering(fence), model)
    assert (verdict.ok, verdict.complete) == (ok, ok)


@pytest.mark.parametrize("model", ["sc", "tso"])
def test_message_passing_holds_where_stores_stay_in_order(model: str) -> None:
    def mp(s: Scenario) -> None:
        data, flag = s.word("data"), s.word("flag")

        @s.actor
        def writer() -> None:
            data.store(1)
            flag.store(1)

        @s.actor
        def reader() -> None:
            if flag.load():
                assert data.load() == 1

    verdict = explored(mp, model)
    assert verdict.ok
    assert verdict.complete


def test_a_buffered_store_is_read_by_its_own_actor() -> None:
    def forwarding(s: Scenario) -> None:
        x = s.word("x")

        @s.actor
        def one() -> None:
            x.store(1)
            assert x.load() == 1

        @s.actor
        def two() -> None:
            x.load()

    assert explored(forwarding, "tso").complete


def counter(s: Scenario, locked: bool) -> None:
    lock, total = s.word("lock"), s.word("total")
    s.spins = True

    def adds() -> None:
        if locked:
            while not lock.cas(0, 1):
                pass
        total.store(total.load() + 1)
        if locked:
            lock.store(0)

    for i in range(3):
        s.actor(adds, name=f"adder {i}")

    @s.at_end
    def all_there(state: State) -> None:
        assert total.get(state) == 3, f"{total.get(state)} of 3"


@pytest.mark.parametrize("model", ["sc", "tso"])
def test_a_lock_saves_the_updates_that_are_lost_without(model: str) -> None:
    assert explored(lambda s: counter(s, True), model).complete
    lost = explored(lambda s: counter(s, False), model).violation
    assert lost is not None
    assert "of 3" in lost.what


def test_a_loop_that_waits_for_another_is_found() -> None:
    def waits(s: Scenario) -> None:
        flag = s.word("flag")

        @s.actor
        def waiter() -> None:
            while not flag.load():
                pass

        @s.actor
        def setter() -> None:
            flag.store(1)

    found = explored(waits).violation
    assert found is not None
    assert "endless loop: waiter" in found.what


def test_a_loop_that_nobody_else_sees_is_found() -> None:
    def private(s: Scenario) -> None:
        word = s.word("word")

        @s.actor
        def alone() -> None:
            while not word.load():
                pass

    found = explored(private).violation
    assert found is not None
    assert "endless loop: alone" in found.what


def wake_up(s: Scenario, right: bool) -> None:
    """One sleeps unless there is work, one makes work and wakes it. Wrong: it looks at the work, then sleeps on
    whatever the word is by then."""
    word, work = s.word("word"), s.word("work")

    @s.actor
    def sleeper() -> None:
        while not work.load():
            seen = word.load()
            if right and work.load():
                break
            if not right:
                seen = word.load()
            word.wait(seen)

    @s.actor
    def waker() -> None:
        work.store(1)
        word.add(1)
        word.wake()

    @s.at_end
    def awake(state: State) -> None:
        assert state.ended(0), "asleep though there is work"


def test_a_lost_wake_up_is_found() -> None:
    assert explored(lambda s: wake_up(s, True)).complete
    found = explored(lambda s: wake_up(s, False)).violation
    assert found is not None
    assert found.what.startswith("asleep though there is work")


@pytest.mark.parametrize("fate", ["deaths", "stops"])
def test_a_lock_does_not_survive_its_holder(fate: str) -> None:
    """With an owner's name and a look whether it lives, it survives a death; a stop for ever it cannot."""

    def named(s: Scenario) -> None:
        lock = s.word("lock")

        @s.actor(slot=1)
        def holder() -> None:
            if lock.cas(0, 1):
                lock.store(0)

        @s.actor(slot=2, mortal=False)
        def other() -> None:
            owner = lock.load()
            if lock.cas(0, 2) or (owner == 1 and not s.alive(1) and lock.cas(1, 2)):
                s.note("has it")
            elif lock.load() == 1:
                s.note("cannot tell yet")

        @s.at_end
        def somebody(state: State) -> None:
            if state.status(0) in ("dead", "stopped") and lock.get(state) == 1:
                assert state.count("cannot tell yet"), "held for ever"

    assert explored(named, **{fate: 1}).complete


@pytest.mark.parametrize("model", ["sc", "tso"])
def test_the_stores_of_the_dead_are_there_before_their_death_is_known(model: str) -> None:
    """Else a scavenger would see a dead owner's store come later than its own."""

    def late(s: Scenario) -> None:
        word, other = s.word("word"), s.word("other")

        @s.actor(slot=1)
        def victim() -> None:
            word.store(1)
            other.store(1)

        @s.actor(slot=2, mortal=False)
        def scavenger() -> None:
            other.load()
            if not s.alive(1):
                word.store(2)
                s.mb()
                assert word.load() == 2, "a dead actor's store came late"

    assert explored(late, model, deaths=1).complete


def test_reaching_outside_is_found() -> None:
    def outside(s: Scenario) -> None:
        word = s.word("word")
        word.offset += 800

        @s.actor
        def reader() -> None:
            word.load()

    found = explored(outside).violation
    assert found is not None
    assert "outside the segment" in found.what


def test_a_violation_can_be_replayed() -> None:
    plan = Plan("sb", store_buffering(False))
    explorer = Explorer(plan, "tso")
    found = explorer.run().violation
    assert found is not None
    trace, what = explorer.replay(found.moves)
    again, _ = explorer.replay(found.moves)
    assert what is not None
    assert what.startswith("both read the old value")
    assert [(who, kind) for who, kind, *_ in trace] == [(who, kind) for who, kind, *_ in again]
    assert any(node is not None and node.where[0][2] == "one" for _, _, node, _ in trace)
    plan.close()


@pytest.mark.parametrize("bound", [0, 1, 2])
def test_bounded_preemptions_say_so(bound: int) -> None:
    verdict = explored(lambda s: counter(s, False), limits=Limits(preemptions=bound))
    assert not verdict.complete
    assert verdict.ok == (bound == 0)  # one preemption, between load and store, loses an update
    if bound == 0:
        assert verdict.why == "every run with at most 0 preemption(s)"


def test_a_limit_says_so() -> None:
    verdict = explored(lambda s: counter(s, True), limits=Limits(states=1))
    assert verdict.complete  # looked at every 2,048 moves: this is over before


def test_an_actor_that_is_not_deterministic_is_refused() -> None:
    count = [0]

    def restless(s: Scenario) -> None:
        count[0] += 1
        words = [s.word(f"w{i}") for i in range(50)]
        mine = words[count[0] % 50]

        def body() -> None:
            for _ in (1, 2):
                if mine.load():
                    words[0].store(1)
                mine.store(1)

        s.actor(body, name="one")
        s.actor(body, name="two")

    with pytest.raises(UpcallError, match="not deterministic"):
        explored(restless)


def test_an_iterator_is_not_taken_for_one_that_was_looked_at_before() -> None:
    """What an iterator is made of is gone once it was looked at; the next one's stood at the same address."""
    found = {frozen([iter(["a"]), iter([last]), iter(["c"])]) for last in "abc"}
    assert len(found) == 3


@scenario
def turns(s: Scenario) -> None:
    """Two actors, each with a `for`."""
    word = s.word("word")

    def body() -> None:
        for _ in range(3):
            while not word.cas(0, 1):
                pass
            word.store(0)

    s.spins = True
    s.actor(body, name="one")
    s.actor(body, name="two")


def test_places_in_a_for_merge_when_the_scenario_is_registered() -> None:
    """Else every failed try would be a new place, without end."""
    verdict = explored(turns)
    assert verdict.complete
    assert max(verdict.nodes) < 30
