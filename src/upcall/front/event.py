"""Events as handlers see them: made from a slot that this vcore has TAKEN, read-only, without a copy of large payloads.

Payloads up to INLINE_MAX bytes are copied into the event (they lie in the slot's own cache lines). Larger ones stay in
their arena block: the event owns the block until its handler has returned and nobody holds a view of it any more. A slice
that a handler keeps outlives the handler; the block is used again once the last view is gone.
"""

import cython

NOTHING = memoryview(b"")


class Budget:
    """How much of an arena the views of one process may hold (`most` bytes), and hold now."""

    def __init__(self, most: int):
        self.most = most


class Event:
    """One event in a handler's hands. All fields are read-only.

    `type` the name that the program gave it (or an :class:`~upcall.EventType`'s name); `type_number` u16; `arg1` u16,
    `arg2` u32, `arg3` u64, `arg4` u64; `payload` a read-only memoryview, of length 0 if there is none; `queue` the name
    of the queue it was sent to, None for mail to a vcore; `vcore` the id of the vcore that handles it; `is_bit` True if
    the sender left a bit and no message, so that repeats have coalesced; `redeliveries` how many vcores died with it in
    their hands, and `redelivered` whether any did (G4).
    """

    @property
    def type(self) -> str:
        return self.names.type_name(self.type_number)

    @property
    def queue(self):
        return self.names.queue_name(self.queue_number)

    @property
    def vcore(self) -> int:
        return self.s.vcoreid

    @property
    def redelivered(self) -> bool:
        return self.redeliveries != 0

    @property
    def payload(self):
        """The payload's bytes; ValueError once the event is done and the payload was not kept, ForkedHandle in a forked
        child. A view that was taken before the fork reads zeros there: give a child bytes(ev.payload)."""
        if forked(self.s.world):
            self.names.fail_forked()
        if self.length == 0:
            return NOTHING
        if self.block != 0 and self.data == cython.NULL:
            raise ValueError("the event is done and its payload released: keep a view of it, or bytes(ev.payload)")
        return memoryview(self)

    def __getbuffer__(self, view: cython.pointer(Py_buffer), flags: cython.int):
        if forked(self.s.world):
            self.names.fail_forked()
        if self.block != 0 and self.data == cython.NULL:
            raise BufferError("the event is done and its payload released")
        at: cython.p_char = self.data if self.block != 0 else cython.cast(cython.p_char, self.inline)
        PyBuffer_FillInfo(view, self, at, self.length, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, view: cython.pointer(Py_buffer)):
        self.exports -= 1
        if self.exports == 0 and self.done:
            self.release()

    def release(self):
        """The handler is done, or the last view is gone: gives the block back if nobody needs it."""
        self.done = True
        if self.block != 0 and self.exports == 0 and self.data != cython.NULL:
            self.data = cython.NULL
            free_block(self.s, self.block)
            if self.counted:
                self.counted = False
                self.budget.held -= self.length

    def let_go(self):
        """Not done after all: its block goes with the message."""
        self.done = True
        self.data = cython.NULL

    def __repr__(self) -> str:
        args = "".join(
            f" {name}={value}"
            for name, value in (("arg1", self.arg1), ("arg2", self.arg2), ("arg3", self.arg3), ("arg4", self.arg4))
            if value
        )
        what = "bit" if self.is_bit else f"{self.length} bytes"
        again = f" redeliveries={self.redeliveries}" if self.redeliveries else ""
        return f"<Event {self.type!r} queue={self.queue!r}{args} {what} vcore={self.vcore}{again}>"


def read_event(s: Seg, names: object, at: uint64_t) -> Event:
    """The event in the slot at `at`, TAKEN by this vcore. None if the slot's contents cannot be (a hostile sender): the
    caller counts it and drops it."""
    ev: Event = Event.__new__(Event)
    ev.s = s
    ev.names = names
    return ev if fill_event(s, ev, at) else None


def fill_event(s: Seg, ev: Event, at: uint64_t) -> cython.bint:
    """Reads the slot at `at` into an event that nobody else holds. False as in `read_event`."""
    ev.done = False
    ev.data = cython.NULL
    ev.redeliveries = (ld64(s.mem, at + SL_WORD) >> 4) & 15
    ev.type_number = ld16(s.mem, at + SL_TYPE)
    ev.arg1 = ld16(s.mem, at + SL_ARG1)
    ev.arg2 = ld32(s.mem, at + SL_ARG2)
    ev.arg3 = ld64(s.mem, at + SL_ARG3)
    ev.arg4 = ld64(s.mem, at + SL_ARG4)
    ev.length = ld32(s.mem, at + SL_LEN)
    ev.queue_number = ld16(s.mem, at + SL_QUEUE)
    ev.block = 0
    if ev.length != 0:
        if ev.length <= INLINE_MAX:
            copy_words(ev.inline, s.mem, at + SL_INLINE, ev.length)
        elif not take_payload(s, ev, ld64(s.mem, at + SL_BLOCK)):
            return False
    return True


def take_payload(s: Seg, ev: Event, block: uint64_t) -> cython.bint:
    """Makes this vcore the owner of an event's block. False if there is no such block."""
    capacity: uint64_t = block_capacity(s, block)
    if capacity < ev.length or not own_block(s, block):
        ev.length = 0
        return False
    ev.block = block
    ev.data = s.mem + block_data(s, block, capacity)
    return True


class EventBatch:
    """The events of one batch, in the order taken: a sequence. An event is made when it is looked at; making one twice
    gives two objects."""

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self.event(i) for i in range(*index.indices(self.n))]
        i: cython.Py_ssize_t = index
        if i < 0:
            i += self.n
        if i < 0 or i >= self.n:
            raise IndexError(f"event {index} of a batch of {self.n}")
        return self.event(i)

    def __iter__(self):
        i: cython.Py_ssize_t = 0
        while i < self.n:
            yield self.event(i)
            i += 1

    def event(self, i):
        if forked(self.s.world):
            self.names.fail_forked()
        if self.done:
            raise ValueError("the batch is done: keep its events, or bytes(ev.payload), in the handler")
        if self.kept is not None:
            found = self.kept.get(i)
            if found is not None:
                return found
        ev = read_event(self.s, self.names, slot_at(self.s, self.places[i]))
        if ev is None:
            raise ValueError(f"event {i} of the batch holds what no sender writes")
        if ev.block != 0:
            # Only one object may own a block: the same one each time.
            if self.kept is None:
                self.kept = {}
            self.kept[i] = ev
        return ev

    def settle(self, cur):
        """The handler is done: each event is DONE, and then its block given back if it was never looked at. In this order,
        as in `Dispatcher.finish`: died in between, an event would be delivered again with a block that is another's."""
        i: cython.Py_ssize_t = 0
        self.done = True
        while i < self.n:
            at: uint64_t = slot_at(self.s, self.places[i])
            block: uint64_t = 0
            if ld32(self.s.mem, at + SL_LEN) > INLINE_MAX and (self.kept is None or i not in self.kept):
                block = ld64(self.s.mem, at + SL_BLOCK)
                if block_capacity(self.s, block) == 0 or not own_block(self.s, block):
                    block = 0
            put_done(self.s, cur, self.places[i])
            if block != 0:
                free_block(self.s, block)
            i += 1

    def put_back(self, cur):
        """The handler was cancelled: each event waits again."""
        i: cython.Py_ssize_t = 0
        self.done = True
        if self.kept is not None:
            for ev in self.kept.values():
                cython.cast(Event, ev).let_go()
        while i < self.n:
            put_back(self.s, cur.mbox, self.places[i])
            i += 1

    def release_kept(self):
        if self.kept is not None:
            for ev in self.kept.values():
                cython.cast(Event, ev).release()

    def __dealloc__(self):
        free(self.places)

    def __repr__(self) -> str:
        return f"<EventBatch of {self.n} events>"
