"""A counterexample, told: a column for each actor, a row for each step, down to where the promise breaks."""

from __future__ import annotations

import html
import linecache
import os
from dataclasses import dataclass, replace
from typing import Any

from .. import _life
from .door import ALIVE, CAS, FENCE, INTERRUPT, KINDS, LOAD, NOTE, REST, STORE, WAIT, WAKE
from .explore import Explorer
from .verdict import MOVES, Move

PLUMBING = ("door.py", "program.py", "plan.py")


@dataclass(frozen=True)
class Row:
    """One step: who, where in the source, what was asked and answered. `seen`: others could tell, it was a move of its
    own."""

    actor: int
    where: str
    function: str
    source: str
    what: str
    seen: bool


@dataclass(frozen=True)
class Story:
    """A run that breaks a promise."""

    scenario: str
    model: str
    actors: tuple[str, ...]
    rows: tuple[Row, ...]
    broken: str

    def lines(self, *, everything: bool = False) -> list[str]:
        """The story for a terminal; `everything`: also the steps that nobody else could see."""
        wide = max(len(name) for name in self.actors)
        found = [f"{self.scenario}, {self.model}:"]
        for number, row in enumerate(self.rows, 1):
            if row.seen or everything:
                who = "  " * row.actor + self.actors[row.actor]
                found.append(f"{number:>5}  {who:<{wide + 2 * len(self.actors)}}  {row.where:<24}  {row.what}")
                if row.source:
                    found.append(f"{'':>7}{'':<{wide + 2 * len(self.actors)}}  {'':<24}    {row.source}")
        return [*found, f"{'':>7}{self.broken}"]

    def page(self) -> str:
        """The story as one self-contained HTML page."""
        heads = "".join(f"<th>{html.escape(name)}</th>" for name in self.actors)
        body = []
        for number, row in enumerate(self.rows, 1):
            cells = ["<td></td>"] * len(self.actors)
            cells[row.actor] = (
                f'<td class="a{row.actor % 6}"><b>{html.escape(row.what)}</b><br><code>{html.escape(row.source)}</code>'
                f"<br><small>{html.escape(row.where)} {html.escape(row.function)}</small></td>"
            )
            kind = "seen" if row.seen else "unseen"
            body.append(f'<tr class="{kind}"><td class="n">{number}</td>{"".join(cells)}</tr>')
        title = html.escape(f"{self.scenario} ({self.model})")
        broken = html.escape(self.broken)
        return _PAGE.format(title=title, heads=heads, body="\n".join(body), broken=broken)


def tell(explorer: Explorer, moves: list[Move]) -> Story:
    """Replays moves and tells what happened."""
    trace, broken = explorer.replay(moves)
    shared = set(explorer.shared_words())
    names = explorer.plan.names_of_words
    rows = [_row(explorer, shared, names, *step) for step in trace]
    for number, newer in explorer.stale_reads.items():
        rows[number] = replace(rows[number], what=f"{rows[number].what} ({newer} newer store{'s' * (newer > 1)})")
    actors = tuple(program.name for program in explorer.plan.programs)
    return Story(explorer.plan.name, explorer.model, actors, tuple(rows), broken or "nothing is broken")


def _row(explorer: Explorer, shared: set[int], names: Any, actor: int, kind: int, node: Any, answer: Any) -> Row:
    if node is None:
        what = {"flush": "its oldest buffered store reaches memory", "dies": "is killed", "stops": "stops for ever"}
        return Row(actor, "", "", "", what[MOVES[kind]], True)
    file, line, function = _place(node.where)
    request = node.request
    seen = (request[0] > FENCE and request[0] != NOTE) or (request[0] < FENCE and request[1] >> 3 in shared)
    source = linecache.getline(file, line).strip() if file else ""
    return Row(actor, f"{_short(file)}:{line}", function, source, _said(explorer, names, request, answer), seen)


def _place(where: tuple[tuple[str, int, str], ...]) -> tuple[str, int, str]:
    for file, line, function in where:
        if os.path.basename(file) not in PLUMBING:
            return file, line, function
    return where[0] if where else ("", 0, "")


def _short(file: str) -> str:
    return os.path.relpath(file, _life.ROOT) if file.startswith(_life.ROOT) else os.path.basename(file)


def _said(explorer: Explorer, names: Any, request: tuple[Any, ...], answer: Any) -> str:
    """A request and its answer, in words."""
    kind = request[0]
    if kind == FENCE:
        return f"fence {request[1]}"
    if kind == NOTE:
        return "note " + " ".join(map(str, request[1]))
    if kind == ALIVE:
        return f"slot {request[1]} alive? {'yes' if answer else 'no'}"
    if kind in (INTERRUPT, REST):
        return f"{KINDS[kind]} {request[1]}"
    if kind > WAKE:
        return KINDS[kind]
    word = names(request[1]) if callable(names) else names.get(request[1] >> 3, f"+{request[1]}")
    if kind == LOAD:
        return f"{word} is {answer:#x}"
    if kind == STORE:
        buffered = explorer.model == "tso" and request[1] >> 3 in set(explorer.shared_words())
        return f"{word} = {request[3]:#x}{' (into its buffer)' if buffered else ''}"
    if kind == CAS:
        change = f"{word}: {request[3]:#x} -> {request[4]:#x}"
        return change if answer else f"{change} fails"
    if kind == WAIT:
        return (
            f"sleeps on {word}" if answer == "sleeps" else f"wakes on {word}" if answer == 0 else f"{word} has changed"
        )
    if kind == WAKE:
        return f"wakes {answer} on {word}"
    return f"{KINDS[kind]} {word}, {request[3]:#x}: was {answer:#x}"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
 body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; }}
 table {{ border-collapse: collapse; }} th, td {{ text-align: left; vertical-align: top; padding: .3em .8em; }}
 th {{ border-bottom: 2px solid #888; position: sticky; top: 0; background: #fff; }}
 tr.unseen {{ display: none; color: #777; }} body.all tr.unseen {{ display: table-row; }}
 td.n {{ color: #999; text-align: right; }} code {{ color: #555; }} small {{ color: #999; }}
 .a0 {{ border-left: 3px solid #36c; }} .a1 {{ border-left: 3px solid #c63; }} .a2 {{ border-left: 3px solid #393; }}
 .a3 {{ border-left: 3px solid #939; }} .a4 {{ border-left: 3px solid #996; }} .a5 {{ border-left: 3px solid #699; }}
 .broken {{ background: #fdd; padding: .6em 1em; border-left: 4px solid #c00; white-space: pre-wrap; }}
</style>
<h1>{title}</h1>
<p><label><input type="checkbox" onchange="document.body.classList.toggle('all', this.checked)"> also the steps that
nobody else could see</label></p>
<table><thead><tr><th></th>{heads}</tr></thead>
<tbody>
{body}
</tbody></table>
<p class="broken">{broken}</p>
</html>
"""
