"""The checker's door: every access, fence and call to the world is a request to whoever drives the actor.

A request is a tuple (kind, ...); the answer is what the access returns. `make` gives a module with the names of
`machine/door.py`, so that the protocol's own files run on it, and programs of other people too.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

LOAD, STORE, CAS, XCHG, ADD, OR, AND, FENCE, WAIT, WAKE, ALIVE, INTERRUPT, GROW, NOTE, REST = range(15)
KINDS = (
    "load", "store", "compare-and-swap", "exchange", "fetch-and-add", "fetch-or", "fetch-and", "fence", "futex wait",
    "futex wake", "alive?", "interrupt", "grow", "note", "rest",
)  # fmt: skip

RELAXED, ACQUIRE, RELEASE = 0, 1, 2
W, R, SC = "wmb", "rmb", "mb"

M64 = (1 << 64) - 1


def make(ask: Callable[[tuple[Any, ...]], Any]) -> ModuleType:
    """A door module whose every access asks `ask`. Memory objects are not looked at: there is one segment."""
    door = ModuleType("upcall_check_door")

    def load(width: int, order: int) -> Callable[[Any, int], int]:
        def access(m: Any, o: int) -> int:
            return ask((LOAD, o, width, order))  # type: ignore[no-any-return]

        return access

    def store(width: int, order: int) -> Callable[[Any, int, int], None]:
        mask = (1 << 8 * width) - 1

        def access(m: Any, o: int, v: int) -> None:
            ask((STORE, o, width, v & mask, order))

        return access

    def change(kind: int, width: int) -> Callable[[Any, int, int], int]:
        mask = (1 << 8 * width) - 1

        def access(m: Any, o: int, v: int) -> int:
            return ask((kind, o, width, v & mask))  # type: ignore[no-any-return]

        return access

    def swap(width: int) -> Callable[[Any, int, int, int], bool]:
        mask = (1 << 8 * width) - 1

        def access(m: Any, o: int, old: int, val: int) -> bool:
            return ask((CAS, o, width, old & mask, val & mask))  # type: ignore[no-any-return]

        return access

    names: dict[str, Any] = {}
    for bits in (8, 16, 32, 64):
        names[f"ld{bits}"] = load(bits // 8, RELAXED)
        names[f"st{bits}"] = store(bits // 8, RELAXED)
    for bits in (32, 64):
        names[f"lda{bits}"] = load(bits // 8, ACQUIRE)
        names[f"str{bits}"] = store(bits // 8, RELEASE)
        names[f"cas{bits}"] = swap(bits // 8)
        for word, kind in (("xchg", XCHG), ("faa", ADD), ("for", OR), ("fand", AND)):
            names[f"{word}{bits}"] = change(kind, bits // 8)
    names["wmb"] = lambda: ask((FENCE, W))
    names["rmb"] = lambda: ask((FENCE, R))
    names["wrmb"] = names["mb"] = lambda: ask((FENCE, SC))
    names["futex_wait"] = lambda m, o, expected, timeout_ns: ask((WAIT, o, 4, expected & 0xFFFFFFFF, timeout_ns))
    names["futex_wake"] = lambda m, o, n: ask((WAKE, o, 4, n))
    # A world of a scenario's own may have locks of its own.
    names["alive"] = lambda world, name: world.alive(name) if hasattr(world, "alive") else ask((ALIVE, name & 0xFFF))
    names["interrupt"] = lambda world, v: ask((INTERRUPT, v))
    names["grow"] = lambda world, o, n: ask((GROW, o, n))

    names.update(_bytes(ask))
    # What touches nothing that is shared.
    names["prefetchw"] = lambda m, o: None
    names["populate"] = lambda world, o, n: None
    names["pause"] = lambda: None
    names["now_ns"] = lambda: 0
    names["u64"] = lambda v: v & M64
    names["low32"] = lambda v: v & 0xFFFFFFFF
    names["ctz64"] = lambda v: (v & -v).bit_length() - 1 if v else 64
    door.__dict__.update(names)
    return door


def _bytes(ask: Callable[[tuple[Any, ...]], Any]) -> dict[str, Any]:
    """Bytes, as the machine's memcpy makes them: word by word, in no promised order among other accesses."""

    def copy_in(m: Any, o: int, src: bytes, n: int) -> None:
        for i in range(0, n, 8):
            piece = bytes(src[i : min(i + 8, n)])
            if len(piece) == 8:
                ask((STORE, o + i, 8, int.from_bytes(piece, "little"), RELAXED))
            else:
                for k, byte in enumerate(piece):
                    ask((STORE, o + i + k, 1, byte, RELAXED))

    def copy_out(dst: bytearray, m: Any, o: int, n: int) -> None:
        for i in range(n):
            dst[i] = ask((LOAD, o + i, 1, RELAXED))

    def copy_words(dst: bytearray, m: Any, o: int, n: int) -> None:
        for i in range(0, n, 8):
            dst[i : i + 8] = ask((LOAD, o + i, 8, RELAXED)).to_bytes(8, "little")

    def bytes_at(m: Any, o: int, n: int) -> bytes:
        return bytes(ask((LOAD, o + i, 1, RELAXED)) for i in range(n))

    return {"copy_in": copy_in, "copy_out": copy_out, "copy_words": copy_words, "bytes_at": bytes_at}
