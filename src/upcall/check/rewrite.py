"""Source, as the checker compiles it: with every `for`'s iterator under a name.

What lies on an evaluation stack cannot be looked at, and a `for` keeps its iterator there. So `for x in y` is compiled as
`for x in (name := iter(y))`: the same, and the iterator's position is among the frame's variables, where `place.Frozen`
finds it. `in_loops` says how many iterators an instruction has below it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

LOOPS: dict[str, list[tuple[int, int]]] = {}
"""For each file: first and last line of the body of each `for` whose iterator has a name."""


class _Named(ast.NodeTransformer):
    def __init__(self, filename: str) -> None:
        self.loops = LOOPS.setdefault(filename, [])
        self.count = 0

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        self.count += 1
        first, last = node.body[0].lineno, node.body[-1].end_lineno or node.body[-1].lineno
        if first > node.lineno:  # a body on the line of its `for` stays as it is: places in it do not merge
            self.loops.append((first, last))
            name = ast.Name(f"_iterator_{self.count}_{node.lineno}", ast.Store())
            made = ast.Call(ast.Name("iter", ast.Load()), [node.iter], [])
            node.iter = ast.NamedExpr(name, made)
        return node


def compiled(tree: ast.Module, filename: str) -> CodeType:
    """A module's code with iterators named."""
    LOOPS.pop(filename, None)
    return compile(ast.fix_missing_locations(_Named(filename).visit(tree)), filename, "exec", dont_inherit=True)


def in_loops(code: CodeType, line: int | None) -> int:
    """How many named iterators lie on the stack at a line of a function."""
    if line is None:
        return 0
    inside = [span for span in LOOPS.get(code.co_filename, ()) if span[0] <= line <= span[1]]
    return sum(1 for span in inside if span[0] > code.co_firstlineno)


def recompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function defined at the top of a module, compiled anew from its source; as it is if there is no source."""
    if not isinstance(function, FunctionType) or function.__closure__:
        return function
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError, TypeError):
        return function
    filename = function.__code__.co_filename
    ast.increment_lineno(tree, first - 1)
    body = tree.body[0]
    if not isinstance(body, ast.FunctionDef):
        return function
    body.decorator_list = []
    spans = LOOPS.setdefault(filename, [])
    spans[:] = [span for span in spans if not first <= span[0] < first + len(lines)]  # of an earlier load of the file
    named = _Named(filename)
    code = compile(ast.fix_missing_locations(named.visit(tree)), filename, "exec", dont_inherit=True)
    (inner,) = [c for c in code.co_consts if isinstance(c, CodeType)]
    made = FunctionType(inner, function.__globals__, function.__name__, function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__doc__ = function.__doc__
    made.__module__ = function.__module__
    made.__dict__.update(function.__dict__)
    return made
