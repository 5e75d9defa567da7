"""Python objects as payloads: a pickle, and behind it the buffers that pickle protocol 5 leaves out of it.

One copy in: each buffer goes straight from its owner into the payload's block. None out: what is made of it again, an array
for example, looks into the block, read-only, and the block is free when the last view of it has gone. If views hold too much
of the arena already (`Budget`) the buffers are copied out, so that nobody who keeps results can stop those who send them.

A payload: the head (what the sender puts before, the pickle, the buffers' lengths as u64), then each buffer on a multiple of
ALIGN.
"""

import cython

ALIGN = cython.declare(uint64_t, 64)
OUT_OF_BAND = cython.declare(uint64_t, 16384)  # smaller buffers are cheaper inside the pickle
BUFFERS_MAX = cython.declare(uint64_t, 1024)
VIEWED = cython.declare(uint64_t, 65536)  # what is smaller is copied out: its block is free at once


class Parcel:
    """An object made ready for sending: `head`, `buffers` (flat memoryviews, or None), `size` of it all."""


class Kept:
    """What pickle asks for each buffer: False, it stays out of the pickle and is kept here."""

    def __call__(self, buffer):
        try:
            view = buffer.raw()
        except BufferError:
            return True  # strided: pickle copies it
        if cython.cast(uint64_t, view.nbytes) < OUT_OF_BAND or len(self.buffers) == BUFFERS_MAX:
            return True
        self.buffers.append(view)
        return False


def pack(dumps: object, value: object, before: bytes = b"") -> Parcel:
    """Makes an object ready, behind some bytes of the caller's. Raises what its pickling raises."""
    parcel: Parcel = Parcel.__new__(Parcel)
    kept: Kept = Kept.__new__(Kept)
    kept.buffers = []
    head: bytes = dumps(value, 5, buffer_callback=kept)
    if before:
        head = before + head
    if not kept.buffers:
        parcel.head = head
        parcel.size = PyBytes_GET_SIZE(head)
        return parcel
    parcel.buffers = kept.buffers
    lengths = [view.nbytes for view in kept.buffers]
    parcel.head = head + b"".join([length.to_bytes(8, "little") for length in lengths])
    size: uint64_t = PyBytes_GET_SIZE(parcel.head)
    for length in lengths:
        size = aligned(size) + cython.cast(uint64_t, length)
    parcel.size = size
    return parcel


@cython.cfunc
@cython.inline
def aligned(at: uint64_t) -> uint64_t:
    return (at + ALIGN - 1) & ~(ALIGN - 1)


def contents(ev: Event, budget: Budget) -> object:
    """An event's payload, for as long as it is wanted: a view of its block if it is large and the budget allows, else a
    copy."""
    if ev.block == 0:
        return PyBytes_FromStringAndSize(ev.inline, ev.length)
    if ev.length < VIEWED or budget.held + ev.length > budget.most:
        return PyBytes_FromStringAndSize(ev.data, ev.length)
    ev.budget = budget
    ev.counted = True
    budget.held += ev.length
    return memoryview(ev)


def unpack(loads: object, payload: object, at: uint64_t, head: uint64_t, count: uint64_t) -> object:
    """The object in a payload, bytes or a view: its pickle begins at `at`, its head has `head` bytes, and `count` buffers
    follow. Raises what unpickling raises; ValueError for what no sender of ours writes."""
    size: uint64_t = len(payload)
    if head > size or count > BUFFERS_MAX or at + 8 * count > head:
        raise ValueError(f"a payload of {size} bytes with a head of {head} and {count} buffers")
    if at == 0 and count == 0:
        return loads(payload)
    whole = memoryview(payload)
    if count == 0:
        return loads(whole[at:])
    start: uint64_t = head
    table: uint64_t = head - 8 * count
    buffers: list = []
    for i in range(count):
        length: uint64_t = int.from_bytes(whole[table + 8 * i : table + 8 * i + 8], "little")
        start = aligned(start)
        if length > size or start > size - length:
            raise ValueError(f"buffer {i} of {length} bytes at {start} of {size}")
        buffers.append(whole[start : start + length])
        start += length
    return loads(whole[at:table], buffers=buffers)


class PartsSender(Sender):
    """Sends parcels."""

    def take_block(self, msg):
        """As `Sender`, of a parcel: head and buffers, each copied once."""
        parcel = self.parcel
        if parcel is None or parcel.buffers is None:
            return Sender.take_block(self, msg)
        s = self.s
        msg.block = alloc_block(s, msg.length)
        if msg.block == 0:
            return FULL
        capacity: uint64_t = block_capacity(s, msg.block)
        if capacity < msg.length:
            return_block(s, msg.block)
            msg.block = 0
            return CORRUPT
        to: uint64_t = block_data(s, msg.block, capacity)
        at: uint64_t = PyBytes_GET_SIZE(parcel.head)
        copy_in(s.mem, to, PyBytes_AS_STRING(parcel.head), at)
        for view in parcel.buffers:
            at = aligned(at)
            copy_in(
                s.mem, to + at, cython.cast(src_t, PyMemoryView_GET_BUFFER(view).buf), PyMemoryView_GET_BUFFER(view).len
            )
            at += PyMemoryView_GET_BUFFER(view).len
        return OK

    def fill(self, number, arg1, arg2, arg3, arg4, parcel):
        msg = self.msg
        msg.ev_type = number
        msg.arg1 = arg1
        msg.arg2 = arg2
        msg.arg3 = arg3
        msg.arg4 = arg4
        msg.src = PyBytes_AS_STRING(parcel.head)
        msg.length = parcel.size
        self.parcel = parcel
        return 0

    def offer(self, number, arg1, arg2, arg3, arg4, parcel):
        """Sends if there is room: the protocol's status. No Python code runs in it, so any thread may call it."""
        self.fill(number, arg1, arg2, arg3, arg4, parcel)
        status: uint64_t = self.put(self.msg, NO_VCORE)
        self.parcel = None
        return status

    def send_parcel(self, number, arg1, arg2, arg3, arg4, parcel):
        """Sends, waiting for room if need be; errors are raised."""
        self.fill(number, arg1, arg2, arg3, arg4, parcel)
        msg = self.msg
        status: uint64_t = self.put(msg, NO_VCORE)
        if status == FULL:
            status = self.put_waiting(msg, NO_VCORE)
        self.parcel = None
        if status != OK:
            self.owner.fail(status, self.queue)
        return 0
