"""What a program is told before it starts, and what the host layer asks of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..flags import EventFlag, EventType
from .handle import Handle

Handler = Callable[[Any], object]
CO_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200
"""As in `inspect`, which takes too long to import."""


@dataclass(frozen=True)
class QueueSpec:
    """One queue of a definition; `mailbox`: None its own, "vcore" a vcore's, or the name of the queue it shares with."""

    name: str
    flags: EventFlag
    vcore: int
    mailbox: str | None
    handler: Handler | None
    on_full: int
    limit: int
    on_death: int
    max_redeliveries: int


@dataclass(frozen=True)
class Registration:
    """One handler of a definition; `batch_max` 0: one event at a time."""

    type: str | EventType
    queue: str | None
    handler: Handler
    batch_max: int


@dataclass(frozen=True)
class SourceSpec:
    """One alarm or tap of a definition: the fields of its record (kern/source), by names. `relative`: `base` counts from
    the start. `fd` a tap's descriptor, a copy of the program's."""

    kind: int
    type: str | EventType
    queue: str | None
    flags: int
    value: int
    base: int = 0
    every: int = 0
    relative: bool = False
    fd: int = -1


@dataclass
class Definition:
    """What a `Proc` is told before it starts."""

    name: str
    vcores: int
    cores: int
    memory: int
    host: str
    spin_us: float
    preempt_after_ms: float
    stop: str
    start_method: str
    on_hang: str
    on_supervisor_death: str
    queues: dict[str, QueueSpec] = field(default_factory=dict)
    registrations: list[Registration] = field(default_factory=list)
    kernel_queues: dict[EventType, str] = field(default_factory=dict)
    mains: list[Callable[[], object]] = field(default_factory=list)
    sources: list[SourceSpec] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    max_concurrent: int = 1
    slow_callback_ms: float = 100.0
    loop: Callable[[], Any] | None = None

    def handlers(self) -> Iterator[Handler]:
        """All functions that are called with events."""
        yield from (item.handler for item in self.registrations)
        yield from (spec.handler for spec in self.queues.values() if spec.handler is not None)

    @property
    def runs_loop(self) -> bool:
        """Whether its workers run an event loop: something in it is `async def`, or it was told to."""
        return self.loop is not None or any(map(is_async, [*self.handlers(), *self.mains]))


def is_async(function: Any) -> bool:
    """Whether a call of this function gives a coroutine."""
    return bool(_code_flags(function) & (CO_COROUTINE | CO_ITERABLE_COROUTINE))


def is_generator(function: Any) -> bool:
    """Whether a call of this function gives something to iterate over: it has a `yield`, and is no coroutine."""
    return bool(_code_flags(function) & (CO_GENERATOR | CO_ASYNC_GENERATOR)) and not is_async(function)


def _code_flags(function: Any) -> int:
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None and callable(function):
        code = getattr(type(function).__call__, "__code__", None)
    return getattr(code, "co_flags", 0)


class Program(Protocol):
    """A `Proc`, as its workers and its supervisor see it."""

    name: str
    definition: Definition

    def handle(self) -> Handle:
        """The attached segment of the running process."""

    def _lend_handle(self, handle: Handle) -> None: ...

    def _close_handle(self) -> None: ...
