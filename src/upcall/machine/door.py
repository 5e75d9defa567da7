"""The interpreted life's door: the words of `upcall_machine.h`, in plain Python, for one thread at a time.

Memory is a :class:`Memory`, a byte array with typed access; the world is a :class:`World`, which remembers who is
alive and who was interrupted or woken. The checker replaces this whole module by one whose every access is a step of
its scheduler; here an access simply happens, so fences have nothing to do.

Widths are those of the compiled life: a store keeps the low bits, an addition wraps.
"""

from __future__ import annotations

import errno
import time

_MASK = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}


class Memory:
    """`size` zero bytes with bounds-checked typed access: an offset outside is an IndexError (the compiled life would
    write outside the mapping: every test that runs here is a proof that the protocol does not). So is one in a hole, where
    that is SIGBUS on a full file system: all from `real` on, until it has grown."""

    def __init__(self, size: int, real: int | None = None) -> None:
        self.bytes = bytearray(size)
        self.holes = bytearray((size + 7) // 8)
        if real is not None:
            self.holes[real // 8 :] = b"\1" * (len(self.holes) - real // 8)
        self.woken: list[tuple[int, int]] = []

    def check(self, what: str, o: int, n: int, align: int = 1) -> None:
        """IndexError, unless all of these bytes may be touched."""
        if o < 0 or o + n > len(self.bytes) or o % align:
            raise IndexError(f"{what} of {n} bytes at offset {o} (size {len(self.bytes)})")
        if 1 in self.holes[o // 8 : (o + n + 7) // 8]:
            raise IndexError(f"{what} of {n} bytes at offset {o}, in a hole")

    def load(self, o: int, width: int) -> int:
        self.check("load", o, width, width)
        return int.from_bytes(self.bytes[o : o + width], "little")

    def store(self, o: int, v: int, width: int) -> None:
        self.check("store", o, width, width)
        self.bytes[o : o + width] = (v & _MASK[width]).to_bytes(width, "little")


class World:
    """Who is alive (attach slots), which vcores were interrupted, whose FIFO nobody reads; a file system with room for no
    holes of `memory` from `real_limit` on."""

    def __init__(self, memory: Memory) -> None:
        self.dead: set[int] = set()
        self.interrupted: list[int] = []
        self.deaf: set[int] = set()
        self.real_limit: int | None = None
        self.memory = memory


def ld8(m: Memory, o: int) -> int:
    return m.load(o, 1)


def ld16(m: Memory, o: int) -> int:
    return m.load(o, 2)


def ld32(m: Memory, o: int) -> int:
    return m.load(o, 4)


def ld64(m: Memory, o: int) -> int:
    return m.load(o, 8)


lda32 = ld32
lda64 = ld64


def st8(m: Memory, o: int, v: int) -> None:
    m.store(o, v, 1)


def st16(m: Memory, o: int, v: int) -> None:
    m.store(o, v, 2)


def st32(m: Memory, o: int, v: int) -> None:
    m.store(o, v, 4)


def st64(m: Memory, o: int, v: int) -> None:
    m.store(o, v, 8)


str32 = st32
str64 = st64


def _cas(m: Memory, o: int, old: int, val: int, width: int) -> bool:
    if m.load(o, width) != old & _MASK[width]:
        return False
    m.store(o, val, width)
    return True


def _exchange(m: Memory, o: int, v: int, width: int) -> int:
    old = m.load(o, width)
    m.store(o, v, width)
    return old


def cas32(m: Memory, o: int, old: int, val: int) -> bool:
    return _cas(m, o, old, val, 4)


def cas64(m: Memory, o: int, old: int, val: int) -> bool:
    return _cas(m, o, old, val, 8)


def xchg32(m: Memory, o: int, v: int) -> int:
    return _exchange(m, o, v, 4)


def xchg64(m: Memory, o: int, v: int) -> int:
    return _exchange(m, o, v, 8)


def faa32(m: Memory, o: int, v: int) -> int:
    return _exchange(m, o, m.load(o, 4) + v, 4)


def faa64(m: Memory, o: int, v: int) -> int:
    return _exchange(m, o, m.load(o, 8) + v, 8)


def for32(m: Memory, o: int, v: int) -> int:
    return _exchange(m, o, m.load(o, 4) | v, 4)


def for64(m: Memory, o: int, v: int) -> int:
    return _exchange(m, o, m.load(o, 8) | v, 8)


def fand32(m: Memory, o: int, v: int) -> int:
    return _exchange(m, o, m.load(o, 4) & v, 4)


def fand64(m: Memory, o: int, v: int) -> int:
    return _exchange(m, o, m.load(o, 8) & v, 8)


def wmb() -> None:
    """Earlier writes before later writes."""


def rmb() -> None:
    """Earlier reads before later reads."""


def wrmb() -> None:
    """Earlier writes before later reads."""


def mb() -> None:
    """Everything before, before everything after."""


def prefetchw(m: Memory, o: int) -> None:
    """A hint without meaning for order."""


def u64(v: int) -> int:
    """A number as the 64 bits that the compiled life would hold."""
    return v & _MASK[8]


def low32(v: int) -> int:
    """The low half of a word."""
    return v & _MASK[4]


def ctz64(v: int) -> int:
    return (v & -v).bit_length() - 1 if v else 64


def copy_in(m: Memory, o: int, src: bytes, n: int) -> None:
    m.check("copy in", o, n)
    m.bytes[o : o + n] = src[:n]


def copy_out(dst: bytearray, m: Memory, o: int, n: int) -> None:
    m.check("copy out", o, n)
    dst[:n] = m.bytes[o : o + n]


copy_words = copy_out


def bytes_at(m: Memory, o: int, n: int) -> bytes:
    """Bytes of the segment as the source of a copy."""
    m.check("source", o, n)
    return bytes(m.bytes[o : o + n])


def futex_wait(m: Memory, o: int, expected: int, timeout_ns: int) -> int:
    """One thread: a wait on an unchanged word would never end, so it is an error of the test that ran into it."""
    if m.load(o, 4) != expected & _MASK[4]:
        return errno.EAGAIN
    if timeout_ns >= 0:
        return errno.ETIMEDOUT
    raise RuntimeError(f"futex_wait at offset {o} would sleep for ever")


def futex_wake(m: Memory, o: int, n: int) -> int:
    m.woken.append((o, n))
    return 0


def now_ns() -> int:
    return time.monotonic_ns()


def pause() -> None:
    """Nothing to yield to."""


def alive(w: World, name: int) -> bool:
    return name & 0xFFF not in w.dead


def grow(w: World, o: int, n: int) -> int:
    holes, first, last = w.memory.holes, o // 8, (o + n + 7) // 8
    if w.real_limit is not None and 1 in holes[max(first, w.real_limit // 8) : last]:
        return errno.ENOSPC
    holes[first:last] = bytes(last - first)
    return 0


def populate(w: World, o: int, n: int) -> None:
    """A mapping of what is real: nothing to do."""


def interrupt(w: World, vcoreid: int) -> int:
    if vcoreid in w.deaf:
        return 0
    w.interrupted.append(vcoreid)
    return 1
