"""Where the protocol's sources say that something is needed: every fence, owner test, look again after a write, and order
of two steps that a comment argues. Each is a `Site`, and can be left out, weakened or turned round when a module is loaded
(`changed`), for `necessity` to see what then breaks.

Fences, releases and owner tests are found by what they are; the rest is listed in `argued`, by its text.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from .. import _life
from .argued import AGAIN, LOADS, MOVED, STEPS
from .rewrite import compiled

FOLDERS = ("kern", "parlib")
FENCES = ("wmb", "rmb", "wrmb", "mb")
OWNERS = ("name_is_dead", "host_is_dead")
RELEASES = ("str32", "str64")
WEAKER = {"str32": "st32", "str64": "st64", "lda32": "ld32", "lda64": "ld64", "xchg64": "st64", "xchg32": "st32"}

DONE = {
    "fence": "left out",
    "release": "relaxed",
    "acquire": "relaxed",
    "exchange": "a plain store",
    "owner": "not asked",
    "again": "not looked",
    "order": "moved",
    "step": "left out",
}
"""Kinds of sites, and what is done to one."""


@dataclass(frozen=True)
class Site:
    """One place: `text` as in the source, `pairs` what its comment says of it. `at`: line and column of the node that is
    changed; `first` and `last` line: who comes there comes to it; `to`: what it becomes (an expression), or where it goes;
    `beside`: line and column of the statement that it goes `before`, or behind."""

    file: str
    function: str
    kind: str
    text: str
    pairs: str
    at: tuple[int, int]
    first: int
    last: int
    to: str = ""
    beside: tuple[int, int] = (0, 0)
    before: bool = False

    @property
    def name(self) -> str:
        """How it is named in tables: stays the same when lines move."""
        return f"{self.file}:{self.function}: {self.text}"

    @property
    def models(self) -> tuple[str, ...]:
        """The memory models that can show it, the simplest first: under `tso` stores stay in order, and so do loads."""
        if self.kind in ("release", "acquire") or (self.kind == "fence" and self.text.startswith(("wmb", "rmb"))):
            return ("ra",)
        if self.kind in ("fence", "exchange"):
            return ("tso", "ra")
        return ("sc", "tso", "ra")


def all_sites() -> list[Site]:
    """All sites of the protocol's sources, in the order of the files."""
    found: list[Site] = []
    for folder in FOLDERS:
        for path in sorted((Path(_life.ROOT) / folder).glob("*.py")):
            found += _File(path).sites()
    twice: dict[str, int] = {}
    named = []
    for site in found:
        twice[site.name] = n = twice.get(site.name, 0) + 1
        named.append(site if n == 1 else _replaced(site, text=f"{site.text} (no. {n})"))
    return named


def _replaced(site: Site, **changes: Any) -> Site:
    return Site(**{**site.__dict__, **changes})


class _File:
    """The sites of one source file."""

    def __init__(self, path: Path) -> None:
        self.name = f"{path.parent.name}/{path.name}"
        self.tree = ast.parse(path.read_text(), str(path))
        with path.open() as text:
            self.comments = {
                t.start[0]: t for t in tokenize.generate_tokens(text.readline) if t.type == tokenize.COMMENT
            }

    def sites(self) -> list[Site]:
        """All sites of the file, in its order."""
        found: list[Site] = []
        for function in _functions(self.tree):
            for node in ast.walk(function):
                found += self._plain(function, node)
            found += self._argued(function)
        unused = [entry for entry in (*AGAIN, *MOVED, *STEPS, *LOADS) if entry[0] == self.name]
        names = {function.name for function in _functions(self.tree)}
        lost = [entry for entry in unused if entry[1] not in names]
        if lost:
            raise LookupError(f"{self.name} has no function {lost[0][1]!r} (any more): see check/argued.py")
        return sorted(found, key=lambda site: site.at)

    def _plain(self, function: ast.FunctionDef, node: ast.AST) -> Iterator[Site]:
        """What is found by what it is."""
        if isinstance(node, ast.Expr) and _called(node.value) in FENCES:
            yield self._site(function, "fence", node)
        elif isinstance(node, ast.Call) and _called(node) in RELEASES:
            yield self._site(function, "release", node)
        elif isinstance(node, ast.Call) and _called(node) in OWNERS:
            yield self._site(function, "owner", node, "True")
        elif isinstance(node, ast.Compare) and _is_me(node):
            # A test that lets one go on becomes true, one that sends the owner away at once is left out.
            early = isinstance(node.ops[0], ast.Eq) and isinstance(_statement(function, node).body[0], ast.Return)
            yield self._site(function, "owner", node, str(isinstance(node.ops[0], ast.Eq) and not early))
        elif isinstance(node, ast.Compare) and any(_called(n) == "page_generation" for n in ast.walk(node)):
            yield self._site(function, "again", node, str(isinstance(node.ops[0], ast.Eq)))

    def _argued(self, function: ast.FunctionDef) -> Iterator[Site]:
        """What `argued` lists."""
        here = (self.name, function.name)
        for *where, text, to in AGAIN:
            if tuple(where) == here:
                yield self._site(function, "again", self._one(function, text, ast.expr), to)
        for *where, text in LOADS:
            if tuple(where) == here:
                node = self._one(function, text, ast.Call)
                yield self._site(function, "exchange" if text.startswith("xchg") else "acquire", node)
        for *where, text in STEPS:
            if tuple(where) == here:
                yield self._site(function, "step", self._one(function, text, ast.stmt))
        for *where, text, way, other in MOVED:
            if tuple(where) == here:
                moved, beside = self._one(function, text, ast.stmt), self._one(function, other, ast.stmt)
                site = self._site(function, "order", moved, f"{way} {_line(beside)}")
                yield _replaced(site, beside=(beside.lineno, beside.col_offset), before=way == "before")

    def _one(self, function: ast.FunctionDef, text: str, kind: type[Any]) -> Any:
        """The one node of this text (a statement: that begins with it; an access: the first)."""
        statement = kind is ast.stmt
        found = [
            node
            for node in ast.walk(function)
            if isinstance(node, kind)
            and (ast.unparse(node).startswith(text) if statement else ast.unparse(node) == text)
            and node is not function
        ]
        if not found or (len(found) > 1 and kind is not ast.Call):
            raise LookupError(
                f"{self.name}, {function.name}: {text!r} is there {len(found)} times; check/argued.py lists it once"
            )
        return found[0]

    def _site(self, function: ast.FunctionDef, kind: str, node: Any, to: str = "") -> Site:
        statement = _statement(function, node)
        first, last = node.lineno, node.end_lineno
        if not any(isinstance(inner, ast.Call) for inner in ast.walk(node)):
            first = function.lineno  # nothing shared on its own lines: whoever comes to the function
        pairs = self._comment(function, statement)
        text = _line(node)
        if kind == "order":
            way, other = to.split(" ", 1)
            text = f"{_brief(text)} {way} {_brief(other)}"
        return Site(self.name, function.name, kind, text, pairs, (node.lineno, node.col_offset), first, last, to)

    def _comment(self, function: ast.FunctionDef, statement: ast.stmt) -> str:
        """What is said about a statement: on its line, above it (or above the statement before it in one breath with it), or
        in the docstring."""
        line = statement.lineno
        if line in self.comments and not self.comments[line].line.lstrip().startswith("#"):
            return _said([self.comments[line].string])
        above = []
        line -= 1
        while line in self.comments and self.comments[line].line.lstrip().startswith("#"):
            above.append(self.comments[line].string)
            line -= 1
        if above:
            return _said(above[::-1])
        before = next(
            (s for s in ast.walk(function) if getattr(s, "lineno", 0) == line and isinstance(s, ast.Expr)), None
        )
        if before is not None and _called(before.value) in FENCES:
            return self._comment(function, before)
        return _said((ast.get_docstring(function) or "").splitlines())


def _said(lines: list[str]) -> str:
    """The sentence of a comment that says what something pairs with; else its first one."""
    whole = " ".join(line.lstrip("# ").strip() for line in lines if line.strip())
    sentences = re.split(r"(?<=[.;])\s+", whole)
    chosen = next((s for s in sentences if "pairs with" in s), sentences[0] if sentences else "")
    return chosen.strip().rstrip(".;")


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def _called(node: ast.AST) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _is_me(node: ast.Compare) -> bool:
    """`x == s.me`, `x != s.me`."""
    return len(node.ops) == 1 and isinstance(node.ops[0], (ast.Eq, ast.NotEq)) and ast.unparse(node).endswith(" s.me")


def _line(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0].rstrip(":")


def _brief(text: str) -> str:
    return text if len(text) <= 50 else f"{text[:47]}..."


def _statement(function: ast.FunctionDef, node: ast.AST) -> Any:
    """The innermost statement around a node."""
    inside = [
        statement
        for statement in ast.walk(function)
        if isinstance(statement, ast.stmt) and any(inner is node for inner in ast.walk(statement))
    ]
    return min(inside, key=lambda statement: (statement.end_lineno or 0) - statement.lineno)


# ---- the change ------------------------------------------------------------------------------------------------------


def changed(site: Site) -> Callable[[ast.Module, str], CodeType]:
    """A transform for `interp.load`: the sources with one site changed."""

    def transform(tree: ast.Module, filename: str) -> CodeType:
        if filename.endswith(f"/{site.file}"):
            change(tree, site)
        return compiled(tree, filename)

    return transform


def change(tree: ast.Module, site: Site) -> None:
    """Takes a site out of its file's tree."""
    if site.kind == "order":
        _move(tree, site)
        return
    change = _Change(site)
    change.visit(tree)
    if change.made != 1:
        raise LookupError(f"{site.name}: changed {change.made} times")
    if site.kind in ("release", "acquire", "exchange"):
        door = next(n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "machine.door")
        door.names += [ast.alias(name) for name in set(WEAKER.values())]


class _Change(ast.NodeTransformer):
    def __init__(self, site: Site) -> None:
        self.site = site
        self.made = 0

    def visit(self, node: ast.AST) -> Any:
        site = self.site
        if (getattr(node, "lineno", 0), getattr(node, "col_offset", -1)) == site.at and self._fits(node):
            self.made += 1
            if site.kind in ("fence", "step"):
                return ast.copy_location(ast.Pass(), node)
            if site.kind in ("owner", "again"):
                return ast.copy_location(ast.parse(site.to, mode="eval").body, node)
            assert isinstance(node, ast.Call)
            assert isinstance(node.func, ast.Name)
            node.func.id = WEAKER[node.func.id]
            return node
        return self.generic_visit(node)

    def _fits(self, node: ast.AST) -> bool:
        kind = ast.stmt if self.site.kind in ("fence", "step") else ast.expr
        same = self.site.text in (_line(node), f"{_line(node)} (no. {self.site.text[-2:-1]})")
        return isinstance(node, kind) and same and not self.made


def _move(tree: ast.Module, site: Site) -> None:
    """Takes a statement out, and puts it beside another."""
    homes = {}
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            for statement in getattr(node, field, []) if isinstance(getattr(node, field, None), list) else []:
                homes[statement.lineno, statement.col_offset] = getattr(node, field), statement
    home, statement = homes[site.at]
    home[home.index(statement)] = ast.copy_location(ast.Pass(), statement)
    there, other = homes[site.beside]
    there.insert(there.index(other) + (not site.before), statement)
