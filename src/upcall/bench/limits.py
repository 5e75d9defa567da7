"""What this machine allows: the same jobs with nothing in the way, as compiled loops on a shared page.

Pairs, one function for each side's process: words with a futex behind each (parked; there and back, or one way), a cache
line that both sides watch (polling), and a ring for one producer and one consumer, which share the slots and one count.
No Python code runs inside what is timed; no library can be faster than these by the same means. And `Slots`, the least that
a method can do which Python calls to send something.

Only the compiled life measures anything: interpreted, the door's memory is private to one process.
"""

import cython

if not cython.compiled:
    from ..machine.door import copy_in, futex_wait, futex_wake, ld64, lda32, lda64, mb, now_ns, st64, str32, str64

    def memory(address):
        """The door's memory is an object in the interpreted life, and is passed as it is."""
        return address


COMPILED = cython.compiled

# Both sides' words on one line: apart, each hop would move two. The ring's slots stand behind them.
PING = 0
PONG = 8
SLOTS = 128
SLOT_BYTES = 32
RING_SLOTS = 4096
PAGE_BYTES: int = SLOTS + SLOT_BYTES * RING_SLOTS


def futex_ping(page, trips, times):
    """Makes `trips` round trips with :func:`futex_pong`, asleep while waiting.

    `page` is the address of PAGE_BYTES of zeroed shared memory, `times` that of `trips` 64-bit words, which take the
    ns of each.
    """
    m = memory(page)
    out = memory(times)
    with cython.nogil:
        i = 1
        while i <= trips:
            begin = now_ns()
            str32(m, PING, i)
            futex_wake(m, PING, 1)
            # The word may change between the look and the wait; then the wait returns at once.
            while lda32(m, PONG) != i:
                futex_wait(m, PONG, i - 1, -1)
            st64(out, 8 * (i - 1), now_ns() - begin)
            i += 1


def futex_pong(page, trips):
    """The other side of :func:`futex_ping`."""
    m = memory(page)
    with cython.nogil:
        i = 1
        while i <= trips:
            while lda32(m, PING) != i:
                futex_wait(m, PING, i - 1, -1)
            str32(m, PONG, i)
            futex_wake(m, PONG, 1)
            i += 1


def futex_tell(page, turn):
    """Wakes :func:`futex_await`, which waits for this `turn` (1, 2, ...). Returns when it began, in ns."""
    m = memory(page)
    begin = now_ns()
    str32(m, PING, turn)
    futex_wake(m, PING, 1)
    return begin


def futex_await(page, turn):
    """Sleeps until :func:`futex_tell` has told this `turn`. Returns when it woke, in ns."""
    m = memory(page)
    with cython.nogil:
        while lda32(m, PING) != turn:
            futex_wait(m, PING, turn - 1, -1)
    return now_ns()


class Slots:
    """Slots of 32 bytes on a page of PAGE_BYTES at this address, for nobody: no producer beside this one, no slot that is
    still in use, nobody to tell."""

    def __init__(self, page):
        self.page = page
        self.turn = 0

    @cython.binding(False)
    def send(self, type, message):
        """Fills the next slot with a type and a message of 16 bytes, and says so last."""
        m = memory(self.page)
        self.turn += 1
        slot = SLOTS + SLOT_BYTES * (self.turn & (RING_SLOTS - 1))
        data: bytes = message
        copy_in(m, slot + 8, data, 16)
        str64(m, slot, self.turn)

    @cython.binding(False)
    def mark(self, type):
        """Finds a bit set: a fence and a look."""
        m = memory(self.page)
        mb()
        if ld64(m, PING) == 0:
            str64(m, PING, 1)


def line_ping(page, blocks, per_block, times):
    """Makes `blocks` times `per_block` round trips with :func:`line_pong`, both watching one cache line.

    `times` takes the ns of each block.
    """
    m = memory(page)
    out = memory(times)
    with cython.nogil:
        turn = 0
        i = 0
        while i < blocks:
            begin = now_ns()
            k = 0
            while k < per_block:
                turn += 1
                str64(m, PING, turn)
                while lda64(m, PONG) != turn:
                    pass
                k += 1
            st64(out, 8 * i, now_ns() - begin)
            i += 1


def line_pong(page, trips):
    """The other side of :func:`line_ping`."""
    m = memory(page)
    with cython.nogil:
        i = 1
        while i <= trips:
            while lda64(m, PING) != i:
                pass
            str64(m, PONG, i)
            i += 1


def ring_fill(page, count):
    """Puts `count` 16-byte messages into the ring, waiting while it is full. Returns when it began, in ns.

    A slot holds its message's number (from 1), stored last with release order, and the message.
    """
    m = memory(page)
    begin = now_ns()
    with cython.nogil:
        free = RING_SLOTS
        i = 1
        while i <= count:
            # The consumer's count is read only when the ring seems full: its line moves once per lap, not per message.
            while i > free:
                free = lda64(m, PONG) + RING_SLOTS
            slot = SLOTS + SLOT_BYTES * (i & (RING_SLOTS - 1))
            st64(m, slot + 8, i)
            st64(m, slot + 16, i)
            str64(m, slot, i)
            i += 1
    return begin


def ring_drain(page, count):
    """Takes `count` messages out of the ring and adds them up. Returns when it ended, in ns.

    Raises RuntimeError if the sum is wrong.
    """
    m = memory(page)
    total = 0
    with cython.nogil:
        i = 1
        while i <= count:
            slot = SLOTS + SLOT_BYTES * (i & (RING_SLOTS - 1))
            while lda64(m, slot) != i:
                pass
            total += ld64(m, slot + 16)
            if i & 255 == 0:
                str64(m, PONG, i)
            i += 1
    if total != count * (count + 1) // 2:
        raise RuntimeError(f"the ring's messages add up to {total}")
    return now_ns()
