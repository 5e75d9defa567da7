"""The table of what was explored, and how far: `docs/explored.md`, a row for each scenario, a column for each memory model.

Rows of scenarios that a run does not explore stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .runner import Result, about

MODELS = ("sc", "tso", "ra")
_HEAD = """# What was explored

Each scenario that upcall brings, under each memory model: made by `upcall check --all --write docs/explored.md`, and
for single ones by `upcall check --all SCENARIO --write docs/explored.md`. *complete*: every state was seen. *<= 2*:
every run with at most two switches away from an actor that could go on. *part*: the time, or the room for states, was
over before every run without such a switch was seen. The number is that of the states of the last bound. *broken*: it
must break there, and does ([litmus.md](litmus.md)). What each scenario is about says `upcall check --list`; the
promises are those of [the contract](contract.md).
"""
_TOP = "| scenario | promises | deaths | stops | sc | tso | ra |\n| --- | --- | --- | --- | --- | --- | --- |"


def read(path: Path) -> dict[str, str]:
    """The rows of an earlier page, by the names of their scenarios; none if there is no such file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def page(results: Sequence[Result], before: dict[str, str]) -> str:
    """The table, as Markdown: these results, and the rows of the page before for scenarios that are not among them."""
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.job.scenario, []).append(result)
    rows = before | {name: _row(name, found) for name, found in by_name.items()}
    groups: dict[str, list[str]] = {}
    for group, name, _ in about():
        if name in rows:
            groups.setdefault(group, []).append(rows[name])
    cells = [cell for there in groups.values() for row in there for cell in row.split(" | ")[-3:] if len(cell) > 3]
    whole, part = (sum(word in cell for cell in cells) for word in ("complete", "part,"))
    broken = sum("broken" in cell for cell in cells)
    told = (
        f"{len(cells)} explorations of {sum(map(len, groups.values()))} scenarios: {whole} complete, "
        f"{len(cells) - whole - part - broken} up to a number of switches, {part} in part; {broken} break as they must."
    )
    lines = [_HEAD, told]
    for group, there in groups.items():
        lines += [f"\n## {group}\n", _TOP, *there]
    return "\n".join(lines) + "\n"


def _row(name: str, found: Sequence[Result]) -> str:
    from .scenarios import CASES

    promises = ", ".join(CASES[name].promises) if name in CASES else ""
    ways = {result.job.model: _cell(result) for result in found}
    deaths, stops = (max(getattr(result.job, what) for result in found) for what in ("deaths", "stops"))
    return f"| `{name}` | {promises} | {deaths} | {stops} | " + " | ".join(ways.get(m, "") for m in MODELS) + " |"


def _cell(result: Result) -> str:
    verdict = result.verdict
    if not verdict.ok:
        return "broken" if result.job.breaks else "**BROKEN**"
    covered = "complete" if verdict.complete else f"<= {verdict.covered}" if verdict.covered >= 0 else "part"
    return f"{covered}, {verdict.states:,}"
