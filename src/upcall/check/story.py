"""A counterexample, told: a column for each actor, a row for each step, down to where the promise breaks.

`tell` runs the moves again and follows memory and store buffers beside them, so that each row can say what it changed, what
waits in a buffer since, and what a reader did not see.
"""

from __future__ import annotations

import linecache
import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .. import _life
from .door import ADD, ALIVE, AND, CAS, FENCE, INTERRUPT, KINDS, LOAD, M64, NOTE, OR, REST, STORE, WAIT, WAKE
from .explore import Explorer
from .promises import PROMISES, promise_of
from .verdict import MOVES, Move

PLUMBING = ("door.py", "program.py", "plan.py")
COLUMN_MIN = 28
"""A narrower column is not worth having: then every step has the whole width."""


@dataclass(frozen=True)
class Row:
    """One step: who, where in the source, what was asked and answered. `seen`: others could tell, it was a move of its
    own. `buffers`: what waits in store buffers after it, by actor. `unseen`: what its read did not see, in words."""

    actor: int
    kind: str
    file: str
    line: int
    function: str
    what: str
    seen: bool
    unseen: str = ""
    buffers: tuple[tuple[int, tuple[str, ...]], ...] = ()

    @property
    def where(self) -> str:
        """Its place in the source, short."""
        return f"{short(self.file)}:{self.line}" if self.file else ""

    @property
    def source(self) -> str:
        """Its line of the source."""
        return linecache.getline(self.file, self.line).strip() if self.file else ""


@dataclass(frozen=True)
class Story:
    """A run that breaks a promise. `ends`: what has become of each actor by then."""

    scenario: str
    model: str
    actors: tuple[str, ...]
    rows: tuple[Row, ...]
    broken: str
    about: str = ""
    ends: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """What breaks, in a line: of an error in an actor's own code the error, not where it was raised."""
        lines = self.broken.strip().splitlines()
        if lines[0].startswith("Traceback"):
            lines = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(:|$)", line)][-1:] or lines
        return lines[0].removeprefix("AssertionError: ")

    @property
    def promise(self) -> str:
        """Which promise of the contract that is, if it is one of them."""
        number = promise_of(self.said)
        return f"{number} {PROMISES[number]}" if number else ""

    def shown(self, everything: bool = False) -> Iterator[tuple[int, Row]]:
        """The rows to tell, by number; `everything`: also those that nobody else could see."""
        return ((number, row) for number, row in enumerate(self.rows, 1) if row.seen or everything)

    def lines(self, *, everything: bool = False, width: int = 100, color: bool = False) -> list[str]:
        """The story for a terminal of so many columns."""
        return _Terminal(self, width, color).lines(everything)

    def page(self) -> str:
        """The story as one self-contained HTML page."""
        from .page import page

        return page(self)


def tell(explorer: Explorer, moves: list[Move]) -> Story:
    """Replays moves and tells what happened."""
    trace, broken = explorer.replay(moves)
    plan = explorer.plan
    actors = tuple(program.name for program in plan.programs)
    replayed = _Replayed(explorer, actors)
    for number, step in enumerate(trace):
        replayed.step(number, *step)
    ends = tuple(_end(explorer, replayed, i) for i in range(len(actors)))
    about = " ".join((plan.about or "").partition("\n\n")[0].split())
    return Story(plan.name, explorer.model, actors, tuple(replayed.rows), broken or "nothing is broken", about, ends)


def short(file: str) -> str:
    """A file's name with its folder; of a file that is not upcall's its name alone."""
    if not file.startswith(_life.ROOT):
        return os.path.basename(file)
    return os.path.join(os.path.basename(os.path.dirname(file)), os.path.basename(file))


def number(value: int) -> str:
    """A word's value as people read it: small ones decimal, masks as what they leave out."""
    if value >> 63:
        return f"-{(1 << 64) - value}" if (1 << 64) - value < 10 else f"~{value ^ M64:#x}"
    return str(value) if value < 10 else f"{value:#x}"


def _end(explorer: Explorer, replayed: _Replayed, actor: int) -> str:
    """What has become of an actor."""
    status = explorer.state.status(actor)
    if status in ("dead", "stopped"):
        return "was killed" if status == "dead" else "is stopped for ever"
    if explorer.has_ended(actor):
        return "has ended"
    if status == "asleep":
        return replayed.waits[actor]
    return "could go on" if explorer.can_go_on(actor) else "waits for an interrupt"


class _Replayed:
    """Memory and store buffers, followed along a run."""

    def __init__(self, explorer: Explorer, actors: tuple[str, ...]) -> None:
        self.explorer, self.actors = explorer, actors
        self.memory: dict[int, int] = dict(explorer.plan.memory)
        self.shared = set(explorer.shared_words())
        self.buffers: list[list[tuple[int, int, int]]] = [[] for _ in actors]
        self.history: dict[int, list[tuple[int, int]]] = {}
        self.waits = [""] * len(actors)
        self.older = explorer.stale_reads
        self.rows: list[Row] = []

    def step(self, index: int, actor: int, kind: int, node: Any, answer: Any) -> None:
        """One step of the trace, as a row."""
        if node is None:
            self._happens(actor, MOVES[kind])
            return
        file, line, function = _place(node.where)
        request = node.request
        seen = request[0] > FENCE or (request[0] < FENCE and request[1] >> 3 in self.shared)
        unseen = self._unseen(index, actor, request, answer)
        what = self._said(actor, request, answer)
        self.waits[actor] = what if answer == "sleeps" else ""
        step = "note" if request[0] == NOTE else "step"
        self.rows.append(Row(actor, step, file, line, function, what, seen, unseen, self._waiting()))

    def _happens(self, actor: int, kind: str) -> None:
        """What is no step of an actor's code. Stores that reach memory one after the other are one row."""
        if kind == "flush":
            offset, width, value = self.buffers[actor].pop(0)
            self._write(actor, offset, width, value)
            what = f"{self._name(offset)} = {number(value)}"
            last = self.rows[-1] if self.rows else None
            if last is not None and last.kind == kind and last.actor == actor:
                self.rows.pop()
                what = f"{last.what.removesuffix(' reaches memory').removesuffix(' reach memory')}, {what} reach memory"
            else:
                what += " reaches memory"
        else:
            for offset, width, value in self.buffers[actor] if kind == "dies" else ():
                self._write(actor, offset, width, value)
            if kind == "dies":
                self.buffers[actor].clear()
            what = "is killed" if kind == "dies" else "stops for ever"
        self.rows.append(Row(actor, kind, "", 0, "", what, True, "", self._waiting()))

    # ---- memory --------------------------------------------------------------------------------------------------

    def _name(self, offset: int) -> str:
        return str(self.explorer.plan.name_of(offset))

    def _read(self, offset: int, width: int) -> int:
        return (self.memory.get(offset >> 3, 0) >> (offset & 7) * 8) & ((1 << 8 * width) - 1)

    def _write(self, actor: int, offset: int, width: int, value: int) -> None:
        shift, full = (offset & 7) * 8, (1 << 8 * width) - 1
        self.memory[offset >> 3] = self.memory.get(offset >> 3, 0) & ~(full << shift) | (value & full) << shift
        self.history.setdefault(offset, []).append((actor, value))

    def _waiting(self) -> tuple[tuple[int, tuple[str, ...]], ...]:
        return tuple(
            (actor, tuple(f"{self._name(offset)} = {number(value)}" for offset, _, value in buffer))
            for actor, buffer in enumerate(self.buffers)
            if buffer
        )

    def _unseen(self, index: int, actor: int, request: tuple[Any, ...], answer: Any) -> str:
        """What a read did not see: stores in others' buffers, or, under `ra`, newer ones in memory."""
        if request[0] != LOAD:
            return ""
        newer = self.older.get(index, 0)
        stores = self.history.get(request[1], [])
        if newer:
            said = [
                f"{self.actors[who]}'s {self._name(request[1])} = {number(value)}" for who, value in stores[-newer:]
            ]
            return f"does not see {', '.join(said)}" if len(said) == newer else f"does not see {newer} newer stores"
        said = [
            f"{self.actors[who]}'s {self._name(offset)} = {number(value)} is still in its buffer"
            for who, buffer in enumerate(self.buffers)
            if who != actor
            for offset, _, value in buffer
            if offset == request[1] and value != answer
        ]
        return "; ".join(said)

    # ---- words ---------------------------------------------------------------------------------------------------

    def _said(self, actor: int, request: tuple[Any, ...], answer: Any) -> str:
        """A request and its answer, in words; what it does to memory is done."""
        kind = request[0]
        if kind == FENCE:
            return f"fence {request[1]}"
        if kind == NOTE:
            return "· " + " ".join(map(str, request[1]))
        if kind == ALIVE:
            return f"slot {request[1]} alive? {'yes' if answer else 'no'}"
        if kind in (INTERRUPT, REST):
            return (
                f"raises interrupt {request[1]}" if kind == INTERRUPT else f"waited for interrupt {request[1]}: it came"
            )
        if kind > WAKE:
            return KINDS[kind]
        offset, width = request[1], request[2]
        name = self._name(offset)
        if kind == LOAD:
            return f"{name} is {number(answer)}"
        if kind == WAIT:
            return {"sleeps": f"sleeps on {name}", 0: f"is woken on {name}"}.get(answer, f"{name} is another by now")
        if kind == WAKE:
            return f"wakes {'nobody' if answer == 0 else answer} on {name}"
        return self._changes(actor, kind, name, offset, width, request, answer)

    def _changes(
        self, actor: int, kind: int, name: str, offset: int, width: int, request: tuple[Any, ...], answer: Any
    ) -> str:
        """A store or a read-modify-write."""
        value = request[3]
        if kind == STORE:
            if self.explorer.model == "tso" and offset >> 3 in self.shared:
                self.buffers[actor].append((offset, width, value))
                return f"{name} = {number(value)}, into its buffer"
            self._write(actor, offset, width, value)
            return f"{name} = {number(value)}"
        if kind == CAS:
            change = f"{name}: {number(value)} -> {number(request[4])}"
            if not answer:
                return f"{change} fails, it is {number(self._read(offset, width))}"
            self._write(actor, offset, width, request[4])
            return change
        full = (1 << 8 * width) - 1
        new = {ADD: answer + value & full, OR: answer | value, AND: answer & value}.get(kind, value)
        self._write(actor, offset, width, new)
        return f"{name}: {number(answer)} -> {number(new)} ({KINDS[kind]} {number(value)})"


def _place(where: tuple[tuple[str, int, str], ...]) -> tuple[str, int, str]:
    for file, line, function in where:
        if os.path.basename(file) not in PLUMBING:
            return file, line, function
    return where[0] if where else ("", 0, "")


class _Terminal:
    """A story in lines of so many columns: a column for each actor where there is room, else steps indented by actor."""

    COLORS = ("blue", "yellow", "green", "magenta", "cyan")

    def __init__(self, story: Story, width: int, color: bool) -> None:
        self.story, self.color = story, color
        self.gutter = len(str(len(story.rows))) + 3
        actors = len(story.actors)
        self.wide = (width - self.gutter) // actors - 2
        self.columns = self.wide >= COLUMN_MIN
        if not self.columns:
            self.wide = max(width - self.gutter - 2 * actors - max(map(len, story.actors)) - 2, COLUMN_MIN)

    def lines(self, everything: bool) -> list[str]:
        """All of it."""
        story = self.story
        found = [self._style(f"{story.scenario}, {story.model}:", bold=True)]
        found += textwrap.wrap(story.about, 100, initial_indent="  ", subsequent_indent="  ")
        if self.columns:
            heads = (self._style(f"{name:<{self.wide}}", fg=self._of(i)) for i, name in enumerate(story.actors))
            found += ["", " " * self.gutter + "  ".join(heads).rstrip()]
        for number_, row in story.shown(everything):
            found += self._row(number_, row)
        return [*found, "", *self._end()]

    def _row(self, at: int, row: Row) -> Iterator[str]:
        parts = [(text, False) for text in textwrap.wrap(row.what, self.wide, subsequent_indent="  ")]
        if row.unseen:
            parts += [(text, False) for text in textwrap.wrap(f"({row.unseen})", self.wide, subsequent_indent="  ")]
        if row.file and row.kind != "note":
            said = f"{row.where}  {row.source}"
            parts += [
                (text, True) for text in textwrap.wrap(said, self.wide, initial_indent="  ", subsequent_indent="    ")
            ]
        for i, (text, dim) in enumerate(parts):
            head = f"{at:>{self.gutter - 2}}  " if i == 0 else " " * self.gutter
            if self.columns:
                head += " " * (self.wide + 2) * row.actor
            else:
                names = self.story.actors
                who = "  " * row.actor + (names[row.actor] if i == 0 else "")
                head += f"{who:<{2 * len(names) + max(map(len, names))}}"
            yield head + (self._style(text, dim=True) if dim else self._style(text, fg=self._of(row.actor)))

    def _end(self) -> Iterator[str]:
        story = self.story
        yield self._style(f"BROKEN: {story.said}", fg="red", bold=True)
        if story.promise:
            yield f"  the promise: {story.promise}"
        for actor, waiting in story.rows[-1].buffers if story.rows else ():
            yield f"  in {story.actors[actor]}'s store buffer: {', '.join(waiting)}"
        yield "  " + ", ".join(f"{name} {end}" for name, end in zip(story.actors, story.ends, strict=False))
        if "\n" in story.broken.strip():
            yield ""
            yield from textwrap.indent(story.broken.strip(), "  ").splitlines()

    def _of(self, actor: int) -> str:
        return self.COLORS[actor % len(self.COLORS)]

    def _style(self, text: str, **how: Any) -> str:
        if not self.color:
            return text
        import click

        return click.style(text, **how)
