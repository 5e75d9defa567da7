"""The rules of the house, as far as a program can see them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "upcall"
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 80
FENCES = {"mb", "wmb", "rmb", "wrmb"}

RANKS = {
    "errors": 0,
    "machine": 1,
    "_life": 2,
    "kern": 2,
    "flags": 3,
    "parlib": 3,
    "front": 4,
    "host": 5,
}
"""Layers and top-level modules by height: each imports from itself and from what is lower. What is not named here (the
public API, the commands, bench, check) is on top."""
TOP = 6


def sources(*folders: str, endings: tuple[str, ...] = (".py",)) -> list[Path]:
    """All source files, or those of some folders, by their path below the package."""
    paths = [path for path in SRC.rglob("*") if path.suffix in endings]
    paths = [path for path in paths if not folders or path.relative_to(SRC).parts[0] in folders]
    assert paths, f"no sources in {SRC} {folders}"
    return sorted(paths)


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def protocol() -> list[Path]:
    """The protocol's modules, without the readers of declarations, which are never compiled."""
    return [path for path in sources("kern", "parlib") if path.name not in ("const.py", "inline.py")]


@each(sources(endings=(".py", ".pxd", ".h")))
def test_a_file_is_one_idea(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= FILE_LINES_MAX


@each(sources())
def test_a_function_fits_a_screen(path: Path) -> None:
    long = [
        f"{node.name} (line {node.lineno}) has {lines} lines"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long


@each(sources(endings=(".py", ".pxd", ".h")) + sorted((ROOT / "tests").rglob("*.py")))
def test_nothing_is_left_to_do(path: Path) -> None:
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    assert not [line for line in path.read_text().splitlines() if words.search(line)]


@each([path for path in sorted(SRC.glob("*.py")) if path.name == "__init__.py" or not path.name.startswith("_")])
def test_what_is_public_says_what_it_does(path: Path) -> None:
    assert not list(undocumented(parse(path)))


def undocumented(scope: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Public functions, classes and their public methods without a docstring; of overloads only the last counts."""
    for node in scope.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
        if not marks & {"overload", "setter"} and not ast.get_docstring(node):
            yield f"{node.name} (line {node.lineno})"
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{inner}" for inner in undocumented(node))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of all that a module imports, wherever it does; `cimport`s of a `.pxd` too."""
    package = ["upcall", *path.relative_to(SRC).parts[:-1]]
    if path.suffix == ".pxd":
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if found := re.match(r"\s*from\s+(\.+)([\w.]*)\s+cimport\s+(.*)", line):
                dots, module, names = found.groups()
                yield from full(number, package, len(dots), module, names.split(","))
        return
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from full(node.lineno, package, node.level, node.module or "", [name.name for name in node.names])


def full(number: int, package: list[str], level: int, module: str, names: list[str]) -> Iterator[tuple[int, str]]:
    """`from ..kern import ucq` in a module of upcall.host, as `upcall.kern.ucq`."""
    base = [*package[: len(package) - level + 1], *module.split(".")] if level else module.split(".")
    for name in names:
        yield number, ".".join(part for part in [*base, name.split(" as ")[0].strip()] if part)


def rank(inner: str) -> int:
    return RANKS.get(inner, TOP)


@each(sources(endings=(".py", ".pxd")))
def test_layers_import_downward(path: Path) -> None:
    own = path.relative_to(SRC).parts[0].removesuffix(path.suffix)
    upward = []
    for number, name in imports(path):
        root, _, inner = name.partition(".")
        layer = inner.partition(".")[0]
        if root == "upcall" and layer != own and rank(layer) >= rank(own) and rank(own) != TOP:
            upward.append(f"line {number}: {own} imports {name}")
    assert not upward


@each(protocol())
def test_protocol_code_imports_cython_and_its_own(path: Path) -> None:
    """The checker replaces the door: nothing else may reach shared memory or the world. And its loads stay apart only
    if every import of the package is relative."""
    absolute = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            absolute += [name.name for name in node.names if name.name != "cython"]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
            absolute.append(node.module or "")
    assert not absolute


@each(protocol())
def test_every_fence_says_what_it_pairs_with(path: Path) -> None:
    """On its line, on the line above, or in the docstring right above it."""
    text = path.read_text()
    tree = ast.parse(text)
    explained = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            explained |= {line, line + 1} if token.line.lstrip().startswith("#") else {line}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            explained.add((node.body[0].end_lineno or 0) + 1)
    silent = [
        f"line {node.lineno}: {node.func.id}()"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FENCES
        if node.lineno not in explained
    ]
    assert not silent
