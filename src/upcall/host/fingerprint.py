"""Whether two definitions of a process are the same: a number for each, kept in the segment.

An owner that takes over running workers compares its definition with theirs. What a handler does is in its code, so the
code is part of the definition: the instructions, names and constants of the functions that were registered. What those
call, and what they are closed over, is not seen.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from types import CodeType
from typing import Any

from .definition import Definition


def _number(parts: object) -> int:
    """64 bits of a structure of numbers, texts and tuples; never 0."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") or 1


def tables(definition: Definition) -> int:
    """A number for what the owner writes into the segment's tables: queues, types, kernel events. Workers of a definition
    with another one would drop what they do not know."""
    return _number(_tables(definition))


def whole(definition: Definition) -> int:
    """A number for all that a worker runs by: the tables, the handlers' code, and the options that it reads."""
    handlers = [(str(item.type), item.queue, item.batch_max, _code(item.handler)) for item in definition.registrations]
    options = {
        field.name: getattr(definition, field.name)
        for field in dataclasses.fields(definition)
        if isinstance(getattr(definition, field.name), (str, float)) and field.name != "name"
    }
    options["loop"] = (definition.max_concurrent, _code(definition.loop))
    by_queue = [(spec.name, _code(spec.handler)) for spec in definition.queues.values() if spec.handler is not None]
    mains = [_code(function) for function in definition.mains]
    return _number((_tables(definition), handlers, options, by_queue, mains, sorted(definition.signals)))


def of_source(definition: Definition, index: int) -> int:
    """A number for one alarm or tap of a definition; its descriptor does not count."""
    return _number((index, *dataclasses.astuple(dataclasses.replace(definition.sources[index], fd=-1))))


def _tables(definition: Definition) -> object:
    specs = [
        tuple(
            (field.name, str(getattr(spec, field.name)))
            for field in dataclasses.fields(spec)
            if field.name != "handler"
        )
        for spec in definition.queues.values()
    ]
    types = sorted({item.type for item in definition.registrations if isinstance(item.type, str)})
    return specs, types, sorted((int(kind), queue) for kind, queue in definition.kernel_queues.items())


def _code(function: Any) -> object:
    if isinstance(function, functools.partial):
        return _code(function.func)
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return (type(function).__module__, type(function).__qualname__, getattr(function, "__qualname__", ""))
    return _instructions(code)


def _instructions(code: CodeType) -> object:
    return (code.co_code, code.co_names, tuple(_constant(value) for value in code.co_consts))


def _constant(value: Any) -> object:
    if isinstance(value, CodeType):
        return _instructions(value)
    if isinstance(value, tuple):
        return tuple(_constant(inner) for inner in value)
    if isinstance(value, frozenset):
        return sorted(repr(inner) for inner in value)  # in no order of its own
    return repr(value)
