"""Scenarios: a few actors on a few shared words, and what must hold. The public face of the checker.

    from upcall.check import scenario

    @scenario
    def message_passing(s):
        data, flag = s.word("data"), s.word("flag")

        @s.actor
        def writer():
            data.store(1)
            s.wmb()               # remove it, and the checker shows what goes wrong under --model ra
            flag.store(1)

        @s.actor
        def reader():
            if flag.load():
                s.rmb()
                assert data.load() == 1, "the flag without the data"

The function is called anew whenever an actor's code has to run again: it must do the same each time (no clock, no random
numbers), and actors must share nothing but words.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from ..errors import UpcallError
from . import door
from .door import (
    ADD,
    ALIVE,
    AND,
    CAS,
    FENCE,
    INTERRUPT,
    LOAD,
    NOTE,
    OR,
    RELAXED,
    RELEASE,
    REST,
    SC,
    STORE,
    WAIT,
    WAKE,
    XCHG,
)
from .place import frozen
from .program import HUB, Hub, Program
from .rewrite import recompiled
from .verdict import Broken, State

A = TypeVar("A", bound=Callable[[], object])
Check = Callable[[State], object]


class Word:
    """One shared word of 8 bytes. `load` and `store` are relaxed unless told otherwise; the rest are read-modify-writes,
    each a full fence."""

    def __init__(self, s: Scenario, name: str, offset: int) -> None:
        self.s, self.name, self.offset = s, name, offset
        self.check_key = ("word", offset)

    def load(self, *, acquire: bool = False) -> int:
        return self.s.ask((LOAD, self.offset, 8, door.ACQUIRE if acquire else RELAXED))  # type: ignore[no-any-return]

    def store(self, value: int, *, release: bool = False) -> None:
        self.s.ask((STORE, self.offset, 8, value & door.M64, RELEASE if release else RELAXED))

    def cas(self, old: int, new: int) -> bool:
        """Compare-and-swap: whether it was `old`, and is `new` now."""
        return self.s.ask((CAS, self.offset, 8, old & door.M64, new & door.M64))  # type: ignore[no-any-return]

    def exchange(self, value: int) -> int:
        return self.s.ask((XCHG, self.offset, 8, value & door.M64))  # type: ignore[no-any-return]

    def add(self, value: int) -> int:
        """Adds; returns what was there."""
        return self.s.ask((ADD, self.offset, 8, value & door.M64))  # type: ignore[no-any-return]

    def set_bits(self, value: int) -> int:
        return self.s.ask((OR, self.offset, 8, value & door.M64))  # type: ignore[no-any-return]

    def keep_bits(self, value: int) -> int:
        return self.s.ask((AND, self.offset, 8, value & door.M64))  # type: ignore[no-any-return]

    def wait(self, seen: int) -> bool:
        """Sleeps on the word's low half (a futex) if it is still `seen`. True: woken; False: it was another."""
        return self.s.ask((WAIT, self.offset, 4, seen & 0xFFFFFFFF, -1)) == 0  # type: ignore[no-any-return]

    def wake(self, most: int = 1) -> int:
        """Wakes so many sleepers; how many there were."""
        return self.s.ask((WAKE, self.offset, 4, most))  # type: ignore[no-any-return]

    def get(self, state: State) -> int:
        """Its value, in a check."""
        return state.get(self.offset)


class Scenario:
    """What a scenario's function is given, to lay out words, actors and checks."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.ask = hub.ask
        self.check_key = "scenario"
        self.memory: dict[int, int] = {}
        self.size = 8
        self.names: list[str] = []
        self.bodies: list[Callable[[], object]] = []
        self.mortal: list[int] = []
        self.slots: dict[int, int] = {}
        self.ends: list[Check] = []
        self.alls: list[Check] = []
        self.words: dict[int, str] = {}
        self.namer: Callable[[int], str] | None = None
        self.spins = False
        """Whether actors may wait for others in loops (a spin lock); else such a loop is a broken promise."""

    def word(self, name: str, value: int = 0) -> Word:
        """A shared word."""
        made = Word(self, name, self.size)
        self.words[self.size >> 3] = name
        self.memory[self.size >> 3] = value & door.M64
        self.size += 8
        return made

    def actor(self, body: A | None = None, *, name: str = "", mortal: bool = True, slot: int | None = None) -> Any:
        """Adds an actor (a decorator). `mortal`: it may be killed or stopped where deaths and stops are explored; `slot`:
        `alive(slot)` says whether it lives."""

        def add(function: A) -> A:
            number = len(self.bodies)
            self.names.append(name or function.__name__)
            self.bodies.append(function)
            if mortal:
                self.mortal.append(number)
            self.slots[number if slot is None else slot] = number
            return function

        return add(body) if body is not None else add

    def at_end(self, check: Check) -> Check:
        """A check of every state in which nobody can do anything more (a decorator)."""
        self.ends.append(check)
        return check

    def always(self, check: Check) -> Check:
        """A check of every state (a decorator)."""
        self.alls.append(check)
        return check

    def protocol(self) -> Any:
        """upcall's own protocol, interpreted over the checker's door."""
        from .process import protocol

        return protocol(self.hub)

    def wmb(self) -> None:
        """Earlier writes before later writes."""
        self.ask((FENCE, door.W))

    def rmb(self) -> None:
        """Earlier reads before later reads."""
        self.ask((FENCE, door.R))

    def mb(self) -> None:
        """Everything before, before everything after."""
        self.ask((FENCE, SC))

    def alive(self, slot: int) -> bool:
        """Whether the actor of this slot has not died."""
        return self.ask((ALIVE, slot))  # type: ignore[no-any-return]

    def note(self, *what: Any) -> None:
        """Writes down that something happened, for the checks: `state.notes[what]` counts. Nobody else sees it."""
        self.ask((NOTE, what))

    def interrupt(self, number: int) -> None:
        """Raises an interrupt."""
        self.ask((INTERRUPT, number))

    def rest(self, number: int) -> None:
        """Does something that only this interrupt ends."""
        self.ask((REST, number))


class Plan:
    """A scenario laid out: what the explorer starts from."""

    def __init__(self, name: str, lay_out: Callable[[Scenario], object]) -> None:
        self.name = name
        self.lay_out = lay_out
        self.hub = HUB
        first = self._scenario()
        if not first.bodies:
            raise UpcallError(f"scenario {name} has no actors: give it functions marked @s.actor")
        self.shared = shared_objects(first.names, first.bodies)
        self.memory = dict(first.memory)
        self.words = (first.size + 7) >> 3
        self.about = lay_out.__doc__ or ""
        self._names, self._namer = first.words, first.namer
        self.slots = first.slots
        self.mortal = first.mortal
        self.spins = first.spins
        self.ends, self.alls = first.ends, first.alls
        self._spare: dict[int, list[Callable[[], object]]] = {i: [body] for i, body in enumerate(first.bodies)}
        self.programs = [Program(self.hub, name, partial(self._body, i)) for i, name in enumerate(first.names)]

    def name_of(self, offset: int) -> str:
        """What lies at an offset, for people."""
        if self._namer is not None:
            return self._namer(offset)
        return self._names.get(offset >> 3, f"+{offset}")

    def at_end(self, state: State) -> None:
        """All checks of a last state."""
        self._check(self.ends, state)

    def always(self, state: State) -> None:
        """All checks of any state."""
        self._check(self.alls, state)

    def _check(self, checks: list[Check], state: State) -> None:
        for check in checks:
            try:
                check(state)
            except (AssertionError, Broken):
                raise
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                raise UpcallError(
                    f"scenario {self.name}: its check {check.__name__} fails itself: {type(error).__name__}: {error} "
                    f"({where.filename}:{where.lineno}); a promise is an assert"
                ) from error

    def shared_change(self) -> str:
        """What actors share beside words, if one of them has changed it: in words; else nothing."""
        for who, name, kept, before in self.shared:
            if frozen(kept) != before:
                return (
                    f"scenario {self.name}: actors {' and '.join(who)} share the {type(kept).__name__} {name!r}, and it was "
                    f"changed. The checker does not see that: use s.word for what they share, s.note for what a check counts"
                )
        return ""

    def _body(self, i: int) -> Callable[[], object]:
        """One actor's code, afresh. Each layout gives one for every actor; those not asked for yet are kept."""
        if not self._spare[i]:
            for j, body in enumerate(self._scenario().bodies):
                self._spare[j].append(body)
        return self._spare[i].pop()

    def _scenario(self) -> Scenario:
        made = Scenario(self.hub)
        with self.set_up(made):
            try:
                self.lay_out(made)
            except UpcallError:
                raise
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                raise UpcallError(
                    f"scenario {self.name} cannot be laid out: {type(error).__name__}: {error} "
                    f"({where.filename}:{where.lineno})"
                ) from error
        return made

    @contextmanager
    def set_up(self, made: Scenario) -> Iterator[None]:
        """While a scenario is laid out its accesses happen at once, on its own memory."""
        self.hub.direct = Direct(made.memory)
        try:
            yield
        finally:
            self.hub.direct = None

    def close(self) -> None:
        """Gives up what actors are kept."""
        for program in self.programs:
            program.close()


class Direct:
    """Answers requests at once, for one actor alone: while a scenario is laid out."""

    def __init__(self, memory: dict[int, int]) -> None:
        self.memory = memory

    def __call__(self, request: tuple[Any, ...]) -> Any:
        kind = request[0]
        if kind in (FENCE, NOTE, INTERRUPT, REST):
            return 1 if kind == INTERRUPT else None
        if kind in (WAKE, door.GROW):
            return 0
        if kind == ALIVE:
            return True
        if kind == WAIT:
            raise RuntimeError("a scenario may not sleep while it is laid out")
        offset, width = request[1], request[2]
        shift, full = (offset & 7) * 8, (1 << 8 * width) - 1
        whole = self.memory.get(offset >> 3, 0)
        old = whole >> shift & full
        if kind == LOAD:
            return old
        value = request[3]
        if kind == CAS:
            if old != value:
                return False
            value = request[4]
        elif kind == ADD:
            value = (old + value) & full
        elif kind == OR:
            value |= old
        elif kind == AND:
            value &= old
        self.memory[offset >> 3] = whole & ~(full << shift) | value << shift
        return None if kind == STORE else True if kind == CAS else old


Shared = tuple[tuple[str, ...], str, Any, Any]
"""Whose it is, its name, the object, its contents frozen."""


def shared_objects(names: list[str], bodies: list[Callable[[], object]]) -> list[Shared]:
    """Lists, dicts, sets and bytearrays that more than one actor's function can reach by a variable of its own."""
    holders: dict[int, tuple[set[str], str, Any]] = {}
    for actor, body in zip(names, bodies, strict=True):
        code = getattr(body, "__code__", None)
        for name, cell in zip(code.co_freevars if code else (), getattr(body, "__closure__", None) or (), strict=True):
            try:
                kept = cell.cell_contents
            except ValueError:
                continue
            if isinstance(kept, (list, dict, set, bytearray)):
                holders.setdefault(id(kept), (set(), name, kept))[0].add(actor)
    return [(tuple(sorted(who)), name, kept, frozen(kept)) for who, name, kept in holders.values() if len(who) > 1]


SCENARIOS: dict[str, Callable[[Scenario], object]] = {}


def scenario(lay_out: Callable[[Scenario], object]) -> Callable[[Scenario], object]:
    """Marks a function as a scenario, and registers it under its name (a decorator). It is called with a `Scenario`, to lay
    out words, actors and checks; again whenever an actor's code has to run again, and must do the same each time."""
    made = recompiled(lay_out)
    made.upcall_scenario = True  # type: ignore[attr-defined]
    SCENARIOS[lay_out.__name__] = made
    return made
