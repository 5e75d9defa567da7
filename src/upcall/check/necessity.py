"""Is it needed? Each site (`sites`) is taken out of the protocol's sources, one at a time, and the scenarios that come to
its lines are explored, cheap ones first, with few switches: one of them must fail, which holds on the sources as they are.

What a site needs is a scenario and a memory model that can show it. The table of an earlier run, `docs/necessity.md`, says
where to look first.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from .. import _life
from .argued import OPEN, WHY
from .explore import Explorer
from .plan import Plan
from .process import changed as running_on
from .process import unchanged
from .program import HUB
from .scenarios import CASES
from .sites import DONE, Site, changed
from .story import Story, tell
from .verdict import Limits, Verdict

BOUNDS = (1, 2, 3)
"""Numbers of switches that are tried."""
GROWTH = 6
"""How many times more states one more switch makes, about."""
DEARER = {"sc": 1, "tso": 2, "ra": 4}
"""How many times more states a memory model makes, about."""
STATES = 1_000_000
"""How many states an exploration may take."""
SAMPLE_STATES = 20_000
"""How far a scenario is explored to see which lines it comes to."""


@dataclass(frozen=True)
class Found:
    """What came of taking one site out: the scenario that fails, under which model, with how many switches; or none."""

    site: Site
    scenario: str = ""
    model: str = ""
    switches: int = 0
    broken: str = ""
    story: str = ""
    seconds: float = 0.0
    tried: int = 0

    @property
    def needed(self) -> bool:
        """Some scenario fails without it."""
        return bool(self.scenario)

    @property
    def why(self) -> str:
        """Why it stays though no scenario fails."""
        return WHY.get(self.site.name, OPEN)

    @property
    def explained(self) -> bool:
        """It is needed, or it is known why it stays."""
        return self.needed or not self.why.startswith("open:")


# ---- which scenarios come to a line ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reached:
    """The lines of the protocol that a scenario comes to, and what exploring it took."""

    scenario: str
    states: int
    lines: frozenset[tuple[str, int]]

    def comes_to(self, site: Site) -> bool:
        """Whether it comes to a site."""
        return any((site.file, line) in self.lines for line in range(site.first, site.last + 1))


def reached(name: str) -> Reached:
    """Explores a scenario for a while, and looks where its actors have been."""
    case = CASES[name]
    plan = Plan(name, case.lay_out)
    try:
        limits = Limits(states=SAMPLE_STATES, preemptions=1)
        verdict = Explorer(plan, "sc", case.deaths, case.stops, limits).run()
        lines = {
            (os.path.relpath(file, _life.ROOT), line)
            for program in plan.programs
            for node in program.nodes
            for file, line, _ in node.where
            if file.startswith(_life.ROOT)
        }
    finally:
        plan.close()
    return Reached(name, verdict.states, frozenset(lines))


# ---- one site --------------------------------------------------------------------------------------------------------

Try = tuple[str, str, int]
"""A scenario, a model, a number of switches."""


def tries(site: Site, known: Sequence[Reached], models: Sequence[str], before: Row | None) -> list[Try]:
    """What to explore for a site, by what it is likely to take; what an earlier run has found, first."""
    found = [
        (each.states * GROWTH**bound * DEARER[model], (each.scenario, model, bound))
        for each in known
        if each.comes_to(site)
        for model in site.models
        if model in models
        for bound in BOUNDS
    ]
    order = [what for _, what in sorted(found)]
    if before is not None and before.scenario in CASES and before.model in models:
        order = [(before.scenario, before.model, bound) for bound in BOUNDS] + order
    return order


def look(site: Site, order: Sequence[Try], seconds: float) -> Found:
    """Takes a site out and explores until a scenario fails. `seconds` of CPU time at most, apart from what `holds` takes."""
    spent = 0.0
    tried = 0
    with running_on(HUB, changed(site)):
        for name, model, bound in order:
            if spent >= seconds:
                break
            start = time.process_time()
            tried += 1
            said = _fails(name, model, bound, seconds - spent)
            fewer = _fails(name, model, bound - 1, seconds - spent) if said is not None else None
            spent += time.process_time() - start
            if said is None:
                continue
            switches = bound if fewer is None else bound - 1
            if holds(name, model, switches):
                return Found(site, name, model, switches, *(fewer or said), seconds=spent, tried=tried)
    return Found(site, seconds=spent, tried=tried)


@functools.cache
def holds(name: str, model: str, switches: int) -> bool:
    """Whether every run with so many switches keeps the promises under this model while nothing is taken out. If not, or if
    it takes too long to say, the scenario shows nothing of any site."""
    with unchanged():
        plan = Plan(name, CASES[name].lay_out)
        try:
            verdict = _explorer(plan, model, Limits(states=STATES, preemptions=switches)).run()
            return verdict.ok and verdict.states < STATES
        finally:
            plan.close()


def _fails(name: str, model: str, switches: int, seconds: float) -> tuple[str, str] | None:
    """Whether a scenario fails: what is broken, and the story in a line."""
    try:
        plan = Plan(name, CASES[name].lay_out)
    except AssertionError as error:
        return f"the scenario cannot be laid out: {error}", "one actor alone"
    try:
        explorer = _explorer(plan, model, Limits(states=STATES, seconds=seconds, preemptions=switches))
        verdict: Verdict = explorer.run()
        if verdict.violation is None:
            return None
        story = tell(explorer, verdict.violation.moves)
        broken = verdict.violation.what.strip().rpartition("\n")[2].removeprefix("AssertionError: ")
        return broken, in_a_line(story)
    finally:
        plan.close()


def _explorer(plan: Plan, model: str, limits: Limits) -> Explorer:
    case = CASES[plan.name]
    return Explorer(plan, model, case.deaths, case.stops, limits)


def in_a_line(story: Story) -> str:
    """Who goes how far, switch by switch."""
    parts: list[str] = []
    k = 0
    while k < len(story.rows):
        row = story.rows[k]
        last = k
        while last + 1 < len(story.rows) and story.rows[last + 1].actor == row.actor:
            last += 1
        end = story.rows[last]
        who = story.actors[row.actor]
        if end.function:
            parts.append(f"{who} up to {end.function} ({os.path.basename(end.file)})")
        else:
            parts.append(f"{who} {end.what}")
        k = last + 1
    if len(parts) > 6:
        parts = [*parts[:2], f"... {len(parts) - 5} more turns ...", *parts[-3:]]
    return "; ".join(parts)


# ---- all of them -----------------------------------------------------------------------------------------------------


def look_at_all(
    sites: Sequence[Site], models: Sequence[str], seconds: float, workers: int, before: dict[str, Row]
) -> Iterator[Found]:
    """Every site, as it is done; on several cores if `workers` says so. `before`: the rows of an earlier page. What they say
    is tried first: only for sites that they say nothing of, or that hold now, all scenarios are asked where they come to."""
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        try:
            first = {
                pool.submit(look, site, tries(site, (), models, before.get(site.name)), seconds): site for site in sites
            }
            spent: dict[Site, float] = {}
            for done in as_completed(first):
                found = done.result()
                if found.needed:
                    yield found
                else:
                    spent[first[done]] = found.seconds
            known = list(pool.map(reached, CASES)) if spent else []
            waiting = [
                pool.submit(look, site, tries(site, known, models, None), seconds - spent[site])
                for site in sites
                if site in spent
            ]
            for done in as_completed(waiting):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# ---- the table -------------------------------------------------------------------------------------------------------

_HEAD = """# What is needed

Made by `upcall check --necessity --write docs/necessity.md`; a test sees to it that it lists exactly what the sources have.

Each row is one place in the protocol's sources that says that it is needed: a fence, a release or acquire, an owner test, a
look again, an order of two steps. The checker takes it out (the column *without it* says how), and explores the scenarios
that come to its lines until one breaks a promise. *Model*: the memory model, and how many times an actor is interrupted.
The story says who goes how far before another's turn.
"""
_CELL = re.compile(r"(?<!\\)\|")
_NEEDED = "| where | without it | what it says | scenario | model | what breaks, and how |\n" + "| --- " * 6 + "|"
_REST = "| where | without it | what it says | why it stays |\n" + "| --- " * 4 + "|"
_UNSHOWN = "Not shown by any scenario"


@dataclass(frozen=True)
class Row:
    """A line of the table: the site's name, the scenario and the model that need it ("" for none)."""

    line: str
    name: str
    scenario: str
    model: str


def row(each: Found) -> Row:
    """The table's line for a site."""
    site = each.site
    where = f"`{_cell(site.name)}`"
    if each.needed:
        told = f"{each.broken}. {each.story}"
        cells = [where, DONE[site.kind], site.pairs, f"`{each.scenario}`", f"{each.model}, {each.switches}", told]
    else:
        cells = [where, DONE[site.kind], site.pairs, each.why]
    line = f"| {' | '.join([cells[0], *map(_cell, cells[1:])])} |"
    return Row(line, site.name, each.scenario, each.model)


def page(found: Sequence[Found], sites: Sequence[Site], before: dict[str, Row]) -> str:
    """The table, as Markdown: what was found now, and the rows of the page before for those of `sites` that were not looked
    at."""
    all_rows = before | {each.site.name: row(each) for each in found}
    there = [all_rows[site.name] for site in sites if site.name in all_rows]
    needed = [each for each in there if each.scenario]
    count = sum(WHY.get(each.name, OPEN).startswith("open:") for each in there if not each.scenario)
    told = f"{len(there)} places; without {len(needed)} of them a scenario fails"
    unshown = f"{count} are open: nobody has shown either" if count else "none is open"
    lines = [_HEAD, f"{told}. The rest is at the end, with why it stays; {unshown}."]
    for file in dict.fromkeys(site.file for site in sites):
        here = [each.line for each in needed if each.name.startswith(f"{file}:")]
        if here:
            lines += [f"\n## {file}\n", _NEEDED, *here]
    rest = [each.line for each in there if not each.scenario]
    if rest:
        lines += [f"\n## {_UNSHOWN}\n", _REST, *rest]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def read(path: Path) -> dict[str, Row]:
    """The rows of an earlier page, by the names of their sites; none if there is no such file."""
    found = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith("| `"):
            cells = [cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1]]
            scenario, model = (cells[3].strip("`"), cells[4].partition(",")[0]) if len(cells) == 6 else ("", "")
            name = cells[0].strip("`")
            found[name] = Row(line, name, scenario, model)
    return found


def as_json(each: Found) -> dict[str, Any]:
    """One result for programs."""
    site = each.site
    return {
        "file": site.file, "function": site.function, "line": site.at[0], "kind": site.kind, "text": site.text,
        "pairs_with": site.pairs, "needed": each.needed, "scenario": each.scenario, "model": each.model,
        "switches": each.switches, "broken": each.broken, "story": each.story, "why_it_stays": each.why,
        "cpu_seconds": round(each.seconds, 3), "explorations": each.tried,
    }  # fmt: skip
