"""Sending, as Python calls it: a compiled method that finds the type's number, fills a message, and calls the protocol.

`Attachment` binds a mapping to a `Seg` and guards it against use in a forked child. `Sender` is what `Queue.send` of the
public API is bound to. No Python object is made between a claim and READY; everything that may fail is converted first.
"""

import operator
import os
from signal import set_wakeup_fd
from threading import main_thread

import cython

watch_forks()
EMPTY = b""
SOON = cython.declare(uint64_t, 16384)  # a payload of so many bytes is copied before whoever is woken for it is awake
# What stands for an argument not given. An object for each: to count one's references up and down for all takes longer.
NO_ARG1, NO_ARG2, NO_ARG3, NO_ARG4 = object(), object(), object(), object()


def bind(s: Seg, buffer: object) -> object:
    """Lets a `Seg` see the memory of a writable buffer, which must be as large as its geometry says. The result must be
    kept as long as the `Seg` is used. ValueError if the buffer is too small."""
    holder = Mapping()
    holder.take(buffer)
    if cython.cast(uint64_t, holder.view.len) < s.size:
        raise ValueError(f"a buffer of {holder.view.len} bytes for a segment of {s.size}")
    s.mem = cython.cast(mem_t, holder.view.buf)
    return holder


class Mapping:
    """Keeps a buffer exported, so that its memory stays mapped."""

    def take(self, buffer):
        PyObject_GetBuffer(buffer, cython.address(self.view), PyBUF_WRITABLE)
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(cython.address(self.view))


class Attachment:
    """One process's use of one segment: the mapping (as a buffer), and the files that go with it. `file` is the open
    segment, the attachment's from now on, `folder` where its FIFOs are. A forked child has neither mapping nor files: the
    objects are there, the memory is its own and all zeros. OSError if it cannot be mapped, or its tables find no room."""

    def __init__(self, s: Seg, file: int, folder: str):
        self.s = s
        self.world = world_new(file, s.size, s.max_vcores)
        if self.world == cython.NULL:
            code = errno
            raise OSError(code, os.strerror(code), folder)
        s.mem = world_base(self.world)
        s.world = self.world
        path: bytes = os.fsencode(folder)
        code = world_open(self.world, path, s.tables_end)
        if code != 0:
            raise OSError(code, os.strerror(code), folder)

    def __getbuffer__(self, view: cython.pointer(Py_buffer), flags: cython.int):
        PyBuffer_FillInfo(view, self, self.s.mem, self.s.size, 0, flags)

    def open_file(self, path: str, flags: cython.int) -> int:
        """Opens a file that belongs to the attachment: a forked child closes it first thing."""
        name: bytes = os.fsencode(path)
        fd: cython.int = open_held(self.world, name, flags)
        if fd < 0:
            raise OSError(-fd, os.strerror(-fd), path)
        return fd

    def close_file(self, fd: cython.int) -> None:
        """Closes one of its files; in a forked child, where it is closed and the number another file's, nothing."""
        close_held(self.world, fd)

    def close_files(self) -> None:
        """Closes all of them. What still uses the mapping finds no room in it from now on, and everybody alive."""
        close_all_held(self.world)

    @property
    def probe(self) -> int:
        """A second open of the segment: to ask for the locks that are held through others, one's own included."""
        return world_probe(self.world)

    @property
    def locks(self) -> int:
        """A third one, which holds this process's liveness locks."""
        return world_locks(self.world)

    def seg(self, slot, generation):
        """A view of the same segment under another name: for one more thread."""
        s = self.s
        other = Seg(s.max_vcores, s.max_queues, s.max_types, s.max_slots, s.page_slots, s.nr_pages, s.nr_spans)
        other.mem = s.mem
        other.world = s.world
        other.set_name(slot, generation)
        return other

    def forked(self):
        """Whether this is a child of the process that attached."""
        return forked(self.world)

    def check(self, at: uint64_t, width: uint64_t):
        """IndexError for a word that is not wholly inside, or not aligned."""
        if at > self.s.size - width or at % width != 0:
            raise IndexError(f"word of {width} bytes at {at} of {self.s.size}")
        return 0

    def u32(self, at: uint64_t) -> int:
        """A u32, before everything that is read after it (an acquire)."""
        self.check(at, 4)
        return lda32(self.s.mem, at)

    def u64(self, at: uint64_t) -> int:
        """A u64, likewise."""
        self.check(at, 8)
        return lda64(self.s.mem, at)

    def put_u32(self, at: uint64_t, value: uint64_t) -> None:
        """Writes a u32 after everything written before it (a release): who reads it finds what it counts or points to."""
        self.check(at, 4)
        str32(self.s.mem, at, value)

    def put_u64(self, at: uint64_t, value: uint64_t) -> None:
        """Writes a u64, likewise."""
        self.check(at, 8)
        str64(self.s.mem, at, value)

    def __dealloc__(self):
        world_free(self.world)


def wait(s, at, seen, instead, timeout_ns):
    """Sleeps while the futex word at `at` is `seen`, at most `timeout_ns` (negative: no limit). In the main thread Python's
    signal handlers run, before the sleep and when a signal ends it, for which it changes the word to `instead`: to others
    that must mean no more than `seen` did."""
    if PyThread_get_thread_ident() != main_thread().ident:
        with cython.nogil:
            futex_wait(s.mem, at, seen, timeout_ns)
        return 0
    armed = False
    while not armed and not forked(s.world):  # a signal handler may fork, and its child come back
        error = arm(s.mem, at, seen, instead)
        if error:
            raise OSError(error, os.strerror(error))
        ours = wake_fd()
        former = taken_from(set_wake_fd(set_wakeup_fd, ours))
        try:
            # The wake-up fd, then the look: pairs with `up_on_urgent`. A signal is found here, or it changes the word.
            PyErr_CheckSignals()
            armed = still_armed()
            if armed:
                with cython.nogil:
                    futex_wait(s.mem, at, seen, timeout_ns)
        finally:
            now = set_wake_fd(set_wakeup_fd, former)  # back to whom it belonged
            if now != ours:
                set_wake_fd(set_wakeup_fd, now)  # set by a signal handler, meanwhile
            disarm()
    PyErr_CheckSignals()
    return 0


def forget_in_forked_child() -> None:
    """A child that another thread has forked during a wait must not write to its parent's pipe."""
    owed = forget_wait()
    if owed != -2:
        set_wake_fd(set_wakeup_fd, owed)


os.register_at_fork(after_in_child=forget_in_forked_child)


def wait_word(s: Seg, at: uint64_t, seen: uint64_t, timeout_ns: int64_t) -> None:
    """`wait` on a word that only counts: a signal counts too."""
    wait(s, at, seen, seen + 1, timeout_ns)


def add_word(s: Seg, at: uint64_t, by: int64_t) -> int:
    """Adds to the u32 at `at`, with a full fence; returns what it was."""
    return faa32(s.mem, at, cython.cast(uint64_t, by))


def current_thread() -> int:
    """This thread's identity, as `threading.get_ident` gives it."""
    return PyThread_get_thread_ident()


def integer(name, bits, value):
    """An argument as an unsigned number. TypeError for what is no integer, OverflowError for one that does not fit."""
    try:
        found: uint64_t = value if isinstance(value, int) else operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name}={value!r} must be an int, not {type(value).__name__}") from error
    except OverflowError as error:
        raise OverflowError(f"{name}={value} does not fit {bits} bits") from error
    if bits < 64 and (found >> bits) != 0:
        raise OverflowError(f"{name}={value} does not fit {bits} bits")
    return found


def view_of(payload):
    """A view of a bytes-like object, taken before a message is filled: a class's own `__buffer__` may send."""
    if isinstance(payload, str):
        raise TypeError("payload must be bytes-like, not str: encode it first, for example payload.encode()")
    return memoryview(payload)


class Sender:
    """Sends to one event queue (or, with no queue, to vcores) for one thread of one attached process.

    `owner` is the Python side: an object with `types` (a dict from a type's name or EventType to its number),
    `check_type(type)` (raises unless it is one of these), `resolve(type)` (the number of a type that is not in it, or an
    error), `fail(status, sender)` (raises), `rebind(sender)` (another thread's sender for the same queue) and
    `name_of_queue`.
    """

    def __init__(self, attachment: Attachment, s: Seg, owner: object, queue: int, thread: int):
        self.attachment = attachment
        self.s = s
        self.owner = owner
        self.types = owner.types
        self.last_type = owner  # no type yet: nobody sends this one
        self.queue = queue
        self.thread = thread
        self.msg = Msg()
        self.mbox = s.nr_mboxes
        # What is longer never fits, however long one waits.
        self.longest = s.nr_spans * SPAN_SIZE if s.nr_spans * SPAN_SIZE < 0xFFFFFFFF else 0xFFFFFFFF
        if queue < s.max_queues:
            self.flags = ld32(s.mem, evq_at(s, queue) + EVQ_FLAGS)
            self.on_full = ld32(s.mem, evq_at(s, queue) + EVQ_ON_FULL)
            own = ld32(s.mem, evq_at(s, queue) + EVQ_MBOX)
            self.mbox = own - 1 if own else s.nr_mboxes
            self.counter = slot_record_at(s, s.my_slot) + AS_SENT

    def retire(self):
        """The thread's name is given back: no thread may send under it any more, not even one whose identity is the same
        (identities are used again). Each later use asks the owner for another sender."""
        self.thread = 0

    def wake(self):
        """Gives a core to a vcore of a process that is WAITING, for a message that is still to be made: its host wakes up
        meanwhile. Nobody relies on it: the vcore may find nothing, and sleep again, and the message is told of as any."""
        s = self.s
        if ld64(s.mem, s.procinfo + PI_STATE) & 0xFF == P_WAITING and self.flags & EVENT_INDIR:
            v: uint64_t = fallback_vcore(s, ld32(s.mem, evq_at(s, self.queue) + EVQ_VCORE))
            if v != NO_VCORE:
                startcore(s, v)

    def number(self, type):
        """The number of an event type, given by name or EventType."""
        if not cython.cast(cython.bint, PyUnicode_CheckExact(type)):
            self.owner.check_type(type)  # 7, 7.0 and the EventType of that number are one key
        found = self.types.get(type)
        if found is None:
            found = self.owner.resolve(type)
        return found

    def check(self):
        """A handle of a forked parent is an error."""
        if forked(self.s.world):
            self.owner.fail_forked()

    def put(self, msg, vcore):
        """One message with its payload's bytes at `msg.src`: takes a block if it needs one, sends, and gives the block
        back if the message did not go."""
        s = self.s
        msg.block = 0
        if msg.length > INLINE_MAX and not (self.flags & EVENT_NOMSG):
            status = self.take_block(msg)
            if status != OK:
                return status
        status = send_event(s, self.queue, msg, vcore)
        # GONE may come after the message is there, and then its slot holds the block.
        if status != OK and status != GONE and msg.block != 0:
            free_block(s, msg.block)
        if status == OK:
            st64(s.mem, self.counter, ld64(s.mem, self.counter) + 1)
        return status

    def take_block(self, msg):
        """A block for the payload, with its bytes in it: a status."""
        return put_payload(self.s, msg)

    def put_waiting(self, msg, vcore):
        """As `put`, when there was no room: does what the queue was told to do then."""
        s = self.s
        self.check()
        if self.on_full == ON_FULL_BIT:
            return self.put_bit(msg, vcore)
        if self.on_full == ON_FULL_RAISE or not self.owner.may_block():
            return FULL
        count(s, AS_WAITS, 1)
        self.msg = Msg()  # a signal handler that runs meanwhile may send with this Sender
        while True:
            at = room_word(s, self.mbox)
            seen = want_room(s, at)
            try:
                # The try after being counted: room given before that would wake nobody.
                status = self.put(msg, vcore)
                if status == FULL:
                    # Room in the segment wakes us. A file system that was full tells nobody when it is not: hence once
                    # a second another try.
                    wait(s, at, seen, seen + 1, 1000000000)
            finally:
                stop_wanting(s, at)
            if status != FULL:
                return status
            self.check()  # a forked child that came back
            if self.thread == 0:
                self.owner.check_open()  # closed by another thread while we waited

    def put_bit(self, msg, vcore):
        """The type's bit instead of the message."""
        s = self.s
        if self.mbox >= s.nr_mboxes:
            return FULL
        status = set_bit(s, self.mbox, msg.ev_type)
        if status == OK and self.flags & EVENT_INDIR:
            send_indir(s, self.queue, ld32(s.mem, evq_at(s, self.queue) + EVQ_VCORE))
        return status if status != OK else unless_gone(s)

    @cython.binding(False)
    def send(self, type, payload=EMPTY, *, arg1=NO_ARG1, arg2=NO_ARG2, arg3=NO_ARG3, arg4=NO_ARG4, vcore=None):
        """See `upcall.Queue.send`."""
        if self.thread != PyThread_get_thread_ident():
            return self.owner.rebind(self).send(type, payload, arg1=arg1, arg2=arg2, arg3=arg3, arg4=arg4, vcore=vcore)
        if forked(self.s.world):
            self.owner.fail_forked()
        plain: cython.bint = PyBytes_CheckExact(payload)
        if plain and PyBytes_GET_SIZE(payload) <= SOON:
            self.wake()
        number: uint64_t = self.last_number
        if type is not self.last_type:
            number = self.number(type)
            self.last_type = type
            self.last_number = number
        wanted: uint64_t = NO_VCORE
        if vcore is not None:
            wanted = self.owner.check_vcore(vcore)
        if not plain:
            payload = view_of(payload)
        msg = self.msg
        self.set_args(msg, arg1, arg2, arg3, arg4)
        msg.ev_type = number
        if plain:
            msg.src = PyBytes_AS_STRING(payload)
            msg.length = PyBytes_GET_SIZE(payload)
            self.send_filled(msg, wanted)
        else:
            self.send_buffer(msg, payload, wanted)

    def set_args(self, msg, arg1, arg2, arg3, arg4):
        """Converts the arguments, all of them before the message is touched: a conversion may run Python code that sends."""
        a1: uint64_t = 0 if arg1 is NO_ARG1 else integer("arg1", 16, arg1)
        a2: uint64_t = 0 if arg2 is NO_ARG2 else integer("arg2", 32, arg2)
        a3: uint64_t = 0 if arg3 is NO_ARG3 else integer("arg3", 64, arg3)
        a4: uint64_t = 0 if arg4 is NO_ARG4 else integer("arg4", 64, arg4)
        msg.arg1 = a1
        msg.arg2 = a2
        msg.arg3 = a3
        msg.arg4 = a4

    def send_filled(self, msg, wanted):
        """Sends what `msg` holds; errors are raised."""
        if self.flags & (EVENT_NOMSG | EVENT_SPAM_PUBLIC):
            self.check_flags(msg)
        if msg.length > self.longest:
            self.owner.fail_length(msg.length, self.longest)
        status = self.put(msg, wanted)
        if status == FULL:
            status = self.put_waiting(msg, wanted)
        if status != OK:
            self.owner.fail(status, self.queue)

    def check_flags(self, msg):
        """What a bit cannot carry, or a message that may arrive several times cannot share."""
        if self.flags & EVENT_NOMSG and (msg.length or msg.arg1 or msg.arg2 or msg.arg3 or msg.arg4):
            self.owner.fail_nomsg()
        if self.flags & EVENT_SPAM_PUBLIC and msg.length > INLINE_MAX:
            self.owner.fail_spam(msg.length)

    def send_buffer(self, msg, payload, wanted):
        """As `send_filled`, for a view of a bytes-like object; held while it is copied."""
        view = cython.declare(Py_buffer)
        PyObject_GetBuffer(payload, cython.address(view), PyBUF_SIMPLE)
        try:
            msg.src = cython.cast(src_t, view.buf)
            msg.length = view.len
            self.send_filled(msg, wanted)
        finally:
            PyBuffer_Release(cython.address(view))

    @cython.binding(False)
    def send_many(self, type, payloads) -> int:
        """See `upcall.Queue.send_many`. Events of one call are told to the process in groups: the first at once."""
        if self.thread != PyThread_get_thread_ident():
            return self.owner.rebind(self).send_many(type, payloads)
        self.check()
        number: uint64_t = self.number(type)
        sent: uint64_t = 0
        quickly: uint64_t = 0
        # Only a list or a tuple: another iterable may pause, and what was not told by then would wait for it.
        quick: cython.bint = (
            self.mbox < self.s.nr_mboxes
            and not (self.flags & (EVENT_NOMSG | EVENT_SPAM_PUBLIC | EVENT_ROUNDROBIN))
            and isinstance(payloads, (list, tuple))
        )
        try:
            for item in payloads:
                plain: cython.bint = PyBytes_CheckExact(item)
                payload = item if plain else view_of(item)
                # `payloads` may be a generator that sends by itself: the message is filled anew each time.
                msg = self.msg
                msg.ev_type = number
                msg.arg1 = msg.arg2 = msg.arg3 = msg.arg4 = 0
                if not plain:
                    self.send_buffer(msg, payload, NO_VCORE)
                    sent += 1
                    continue
                msg.src = PyBytes_AS_STRING(payload)
                msg.length = PyBytes_GET_SIZE(payload)
                if quick and (sent & 63) != 0 and msg.length <= INLINE_MAX:
                    msg.queue = self.queue + 1
                    if proc_state(self.s) != P_DYING and send_ucq_some(self.s, self.mbox, msg) == OK:
                        sent += 1
                        quickly += 1
                        continue
                self.send_filled(msg, NO_VCORE)
                sent += 1
        except BaseException as error:
            self.flush(quickly)
            self.owner.note_sent(error, sent)
            raise
        self.flush(quickly)
        return sent

    def flush(self, quickly):
        """What `send_ucq_some` left to its caller, for so many messages."""
        s = self.s
        if quickly != 0:
            mb()  # READY of every message before alert_pending: pairs with `poll_queue`, as in `send_event`
            if self.flags & EVENT_INDIR:
                send_indir(s, self.queue, ld32(s.mem, evq_at(s, self.queue) + EVQ_VCORE))
            count(s, AS_SENT, quickly)
            if unless_gone(s) == GONE:
                self.owner.fail(GONE, self.queue)

    def post_vcore(self, type, payload, vcoreid: uint64_t, private: cython.bint, arg1, arg2, arg3, arg4) -> int:
        """`post_vcore_event`: to one vcore's public or private mailbox. Returns the protocol's status."""
        view = cython.declare(Py_buffer)
        self.check()
        s = self.s
        msg = self.msg
        number: uint64_t = self.number(type)
        if not cython.cast(cython.bint, PyBytes_CheckExact(payload)):
            payload = view_of(payload)
        self.set_args(msg, arg1, arg2, arg3, arg4)
        msg.ev_type = number
        msg.block = 0
        PyObject_GetBuffer(payload, cython.address(view), PyBUF_SIMPLE)
        msg.src = cython.cast(src_t, view.buf)
        msg.length = view.len
        if msg.length > self.longest:
            PyBuffer_Release(cython.address(view))
            self.owner.fail_length(msg.length, self.longest)
        status: uint64_t = put_payload(s, msg) if msg.length > INLINE_MAX else OK
        if status == OK:
            status = post_vcore_event(s, msg, vcoreid, EVENT_VCORE_PRIVATE if private else 0)
            if status != OK and status != GONE and msg.block != 0:
                free_block(s, msg.block)
        PyBuffer_Release(cython.address(view))
        if status == OK:
            count(s, AS_SENT, 1)
        return status

    def kernel_event(self, number: uint64_t, payload, arg1: object, arg2: object, arg3: object, arg4: object) -> int:
        """`send_kernel_event`, with at most INLINE_MAX payload bytes. Returns the protocol's status."""
        self.check()
        msg = self.msg
        held: bytes = bytes(payload)
        self.set_args(msg, arg1, arg2, arg3, arg4)
        msg.ev_type = number
        msg.block = 0
        msg.src = PyBytes_AS_STRING(held)
        msg.length = PyBytes_GET_SIZE(held)
        status: uint64_t = send_kernel_event(self.s, msg, NO_VCORE)
        if status == OK:
            count(self.s, AS_SENT, 1)
        return status

    def signal(self, signum: uint64_t) -> int:
        """`send_posix_signal`. Returns the protocol's status."""
        self.check()
        status: uint64_t = send_posix_signal(self.s, self.msg, signum)
        if status == OK:
            count(self.s, AS_SENT, 1)
        return status
