"""Buffers that pickle would copy into itself: bytes, bytearrays, and memoryviews, which it does not know at all.

They travel beside the pickle, like arrays. A memoryview arrives as one, read-only, on the segment itself; bytes and
bytearrays arrive as what they were, which takes one copy out. Only whole arguments and whole results are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any

LEAST = 16384
"""Smaller ones stay in the pickle."""


class Outgoing:
    """Stands for a buffer while it is pickled."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[[Any], Any], tuple[object]]:
        value = self.value
        if not isinstance(value, memoryview):
            return type(value), (PickleBuffer(value),)
        if not value.contiguous or value.nbytes < LEAST:
            return memoryview, (bytes(value),)
        if value.ndim == 1 and value.format == "B":
            return memoryview, (PickleBuffer(value),)
        return _shaped, (PickleBuffer(memoryview(value).cast("B")), value.format, value.shape)  # type: ignore[return-value]


def _shaped(flat: memoryview, form: str, shape: tuple[int, ...]) -> memoryview:
    return memoryview(flat).cast("B").cast(form, shape)  # type: ignore[call-overload, no-any-return]


def outgoing_one(value: Any) -> Any:
    """The value, or what stands for it."""
    if type(value) is memoryview or (type(value) in (bytes, bytearray) and len(value) >= LEAST):
        return Outgoing(value)
    return value


def outgoing(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments, with what stands for large buffers among them."""
    return tuple(map(outgoing_one, args)), {name: outgoing_one(value) for name, value in kwargs.items()}


def too_large(what: str, size: int, limit: int) -> Exception:
    """The error for what never fits."""
    from ..errors import MailboxFull

    return MailboxFull(
        f"{what} of {size} bytes is more than the executor's segment holds at once ({limit}): "
        f"give it more, Executor(memory={5 * size})"
    )
