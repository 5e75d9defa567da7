"""An actor as an automaton: what it asks next, given what it has been answered so far.

An actor is ordinary code that reaches shared memory only through the door. Between two requests it depends on nothing but
the answers, so it need not run again for every interleaving: a `Node` is a place where it has asked something, with an
edge for each answer that has been tried. The explorer walks nodes; code runs only to find a node that is not known yet,
in a greenlet that is kept at its last place, or, if that has gone another way, from the start along recorded answers.

Two nodes are one if the actor's future is the same in both: the same request, the same functions at the same
instructions, and the same contents of all that their variables lead to. What lies on a frame's evaluation stack is not
among its variables, so a node merges only where nothing lies there but the call itself, which is read off the bytecode;
elsewhere (inside a `for`, or the second call of one expression) a node stands for its whole history.
"""

from __future__ import annotations

import dis
import itertools
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType
from typing import Any

import greenlet

from ..errors import UpcallError
from .door import KINDS
from .nodes import Node
from .place import place
from .rewrite import in_loops

OURS = {os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py") for name in ("door", "program", "plan")}
"""Files whose frames hold nothing but the request that they pass on."""
KEPT = 4000
"""Greenlets kept at their last place; older ones are given up, and run again if they are needed."""
Request = tuple[Any, ...]


class Hub:
    """Where requests go: to the explorer, out of an actor's greenlet; or, while a scenario is set up, to `direct`."""

    def __init__(self) -> None:
        self.main = greenlet.getcurrent()
        self.direct: Callable[[Request], Any] | None = None
        self.closing = False

    def ask(self, request: Request) -> Any:
        """The answer to a request."""
        if self.direct is not None:
            return self.direct(request)
        if self.closing:
            raise greenlet.GreenletExit
        return self.main.switch(request)


class NotDeterministic(UpcallError):
    """An actor that does not do the same when it runs again."""


def said(request: Any) -> str:
    """A request, for people."""
    return f"{KINDS[request[0]]} {request[1:]!r}" if isinstance(request, tuple) and request else "nothing, and ends"


def _at(lines: Sequence[tuple[str, int, str]]) -> str:
    """Where in the source a request was made, for people: the innermost line, and who called it."""
    return " at " + ", called at ".join(f"{file}:{line}" for file, line, _ in lines[:2]) if lines else ""


HUB = Hub()
"""The process's hub: the greenlet that imports this module explores."""


class Program:
    """One actor. `make` gives its code afresh, in the state in which the scenario starts."""

    def __init__(self, hub: Hub, name: str, make: Callable[[], Callable[[], object]]) -> None:
        self.hub = hub
        self.name = name
        self.make = make
        self.nodes: list[Node] = []
        self.known: dict[Any, Node] = {}
        self.kept: list[Node] = []
        self.ran = 0
        """Requests made by running code, those of repeated runs included."""
        self.root = self._start()

    def after(self, node: Node, value: Any) -> Node:
        """The node that follows when `node`'s request is answered with `value`."""
        found = node.edges.get(value)
        if found is None:
            found = self._run(node, value)
            node.edges[value] = found
        return found

    def _start(self) -> Node:
        return self._arrived(*self._first(), None, None)

    def _first(self) -> tuple[greenlet.greenlet, Any]:
        g = greenlet.greenlet(_life)
        self.ran += 1
        return g, g.switch(self.make())

    def _run(self, node: Node, value: Any) -> Node:
        g = node.live.pop() if node.live else self._again(node)
        self.ran += 1
        return self._arrived(g, g.switch(value), node, value)

    def _again(self, node: Node, *, afresh: bool = False) -> greenlet.greenlet:
        """A greenlet at `node`, run along the answers that led there: from the last place where one was kept, or from the
        start (`afresh`: in any case)."""
        path = [node]
        while path[-1].parent is not None and (afresh or not path[-1].live):
            path.append(path[-1].parent)
        kept = path[-1].live if not afresh else None
        g, request = (kept.pop(), path[-1].request) if kept else self._first()
        for at in reversed(path):
            if at is not path[-1]:
                self.ran += 1
                request = g.switch(at.value)
            self._compare(g, request, at)
        return g

    def _compare(self, g: greenlet.greenlet, request: Any, node: Node) -> None:
        """NotDeterministic, with both source lines, if a greenlet asks anything but what was asked at `node`."""
        if g.dead:
            request = None
        if request != node.request:
            lines = () if g.dead else tuple(_lines(g))
            raise NotDeterministic(
                f"actor {self.name!r} is not deterministic: run again it asks {said(request)}{_at(lines)} where it "
                f"asked {said(node.request)}{_at(node.where)}. A scenario must do the same each time: no clock, no random "
                f"numbers, no order of a set or of addresses, nothing kept between runs; actors share nothing but words"
            )

    def recheck(self, seconds: float, most: int = 20) -> None:
        """Runs the code to a sample of the places again, from the start, and one answer on, which may lead to a place that
        was known from elsewhere: NotDeterministic if it asks anything else. The way to a place may be long: no place more
        once so many seconds are over."""
        end = time.monotonic() + seconds
        places = [node for node in self.nodes if node.request is not None]
        sample = places[:: max(1, len(places) // most)]
        for node in reversed(sample):
            g = self._again(node, afresh=True)
            for value, following in list(node.edges.items())[-1:]:
                self._compare(g, g.switch(value), following)
            self._end(g)
            if time.monotonic() >= end:
                break

    def _arrived(self, g: greenlet.greenlet, said: Any, parent: Node | None, value: Any) -> Node:
        if g.dead:
            node = Node(len(self.nodes), None, parent, value)
            node.error = said
            self.nodes.append(node)
            return node
        key = _place(g, said)
        node = self.known.get(key) if key is not None else None  # type: ignore[assignment]
        if node is None:
            node = Node(len(self.nodes), said, parent, value)
            node.where = tuple(_lines(g))
            self.nodes.append(node)
            if key is not None:
                self.known[key] = node
        node.live.append(g)
        self.kept.append(node)
        if len(self.kept) > KEPT:
            self._give_up(self.kept[: KEPT // 2])
            self.kept = self.kept[KEPT // 2 :]
        return node

    def _give_up(self, nodes: list[Node]) -> None:
        for node in nodes:
            for g in node.live:
                self._end(g)
            node.live.clear()

    def _end(self, g: greenlet.greenlet) -> None:
        """Ends a greenlet where it is; what it asks on its way out (finally clauses) is not answered."""
        self.hub.closing = True
        try:
            if not g.dead:
                g.throw(greenlet.GreenletExit)
        finally:
            self.hub.closing = False

    def close(self) -> None:
        """Gives up all greenlets."""
        self._give_up(self.kept)
        self.kept = []


def _life(function: Callable[[], object]) -> str | None:
    """An actor from its start to its end: None, or what went wrong."""
    try:
        function()
    except greenlet.GreenletExit:
        return None
    except BaseException as error:
        return "".join(traceback.format_exception(error))
    return None


# ---- the same place? -------------------------------------------------------------------------------------------------


def _frames(g: greenlet.greenlet) -> Iterator[FrameType]:
    """The actor's own frames, innermost first."""
    frame = g.gr_frame
    while frame is not None:
        if frame.f_code.co_filename not in OURS:
            yield frame
        frame = frame.f_back


def _lines(g: greenlet.greenlet) -> Iterator[tuple[str, int, str]]:
    for frame in _frames(g):
        yield frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name


def _place(g: greenlet.greenlet, request: Request) -> Any:
    """What the actor's future depends on; None if that cannot be told."""
    frames = list(_frames(g))
    for frame in frames:
        if not _bare(frame.f_code).get(frame.f_lasti, False):
            return None
    return place(request, frames)


_bare_calls: dict[int, tuple[CodeType, dict[int, bool]]] = {}
_PUSHES_ONE = ("CALL", "LOAD_ATTR", "LOAD_METHOD", "BINARY_")


def _bare(code: CodeType) -> dict[int, bool]:
    """For each instruction that may call: whether nothing lies on the evaluation stack below what it puts there."""
    found = _bare_calls.get(id(code))
    if found is None:
        found = _bare_calls[id(code)] = (code, dict(_calls(code)))
    return found[1]


def _calls(code: CodeType) -> Iterator[tuple[int, bool]]:
    depths = _depths(code)
    listed = list(dis.get_instructions(code))
    ends = [ins.offset for ins in listed[1:]] + [len(code.co_code)]
    for ins, end in zip(listed, ends, strict=True):
        if ins.offset in depths and ins.opname.startswith(_PUSHES_ONE):
            after = depths[ins.offset] + dis.stack_effect(ins.opcode, ins.arg)
            line = ins.positions.lineno if ins.positions else None
            # A frame in a call stands at the instruction, or somewhere in the cache behind it.
            for at in range(ins.offset, end, 2):
                yield at, after == 1 + in_loops(code, line)


def _depths(code: CodeType) -> dict[int, int]:
    """The depth of the evaluation stack before each instruction that can be reached."""
    code_list = list(dis.get_instructions(code))
    following = {a.offset: b for a, b in itertools.pairwise(code_list)}
    by_offset = {ins.offset: ins for ins in code_list}
    depths: dict[int, int] = {}
    work = [(code_list[0].offset, 0)]
    work += [
        (entry.target, entry.depth + 1 + bool(entry.lasti))
        for entry in dis._parse_exception_table(code)  # type: ignore[attr-defined]
    ]
    while work:
        at, depth = work.pop()
        if at in depths or at not in by_offset:
            continue
        depths[at] = depth
        ins = by_offset[at]
        jumps = ins.opcode in dis.hasjrel or ins.opcode in dis.hasjabs
        if jumps:
            work.append((ins.argval, depth + dis.stack_effect(ins.opcode, ins.arg, jump=True)))
        ends = ins.opname in ("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE")
        if not ends and not ins.opname.startswith(("JUMP_FORWARD", "JUMP_BACKWARD")) and at in following:
            arg = ins.arg if ins.opcode >= dis.HAVE_ARGUMENT else None
            work.append(
                (following[at].offset, depth + dis.stack_effect(ins.opcode, arg, jump=False if jumps else None))
            )
    return depths
