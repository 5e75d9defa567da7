"""Tasks of an executor, in the program that makes them: what is done for each one.

A task is an event in the workers' queue, its answer an event for the parent's only vcore; `arg3` is the task's number. The
workers' side is in `runner`. In the parent, `Inbox` is that vcore's dispatcher, and whoever has the interpreter's lock may
run it: the thread that waits in `Future.result()` leads it for a bounded while (no other thread need run to hand it its
answer), and the executor's own thread attends it the rest of the time. An answer is only put down here, as it came:
unpickling is left to who asks for it, so that no code of the program's runs in the middle of the vcore's work. Futures that
somebody waits for through their condition, or that have callbacks, are left to the executor's own thread (`slow`).

What is not sent yet (`overflow`) has not left this process: no more than `window` tasks are on their way at once, so that
neither side's memory fills up with them.
"""

import pickle
from collections import deque
from concurrent.futures import CancelledError
from threading import Condition
from types import BuiltinFunctionType, FunctionType, ModuleType

import cython

PENDING, RUNNING, FINISHED = "PENDING", "RUNNING", "FINISHED"
CANCELLED, CANCELLED_AND_NOTIFIED = "CANCELLED", "CANCELLED_AND_NOTIFIED"
loads = pickle.loads

ANSWER_DEATH = DEATH
KNOWN_MAX = 1024
LEAST_PATIENCE = cython.declare(int64_t, 5000)
MOST_PATIENCE = cython.declare(int64_t, 150000)
"""For how long a thread that waits for a result looks by itself, in ns: the most, if the last wait was shorter than that;
after each that was longer half as long, but never less than the least."""


LARGE = (bytes, bytearray, memoryview)
"""Types that pickle keeps inside of itself, or does not know, though they are buffers."""


def large_among(values) -> cython.bint:
    """Whether one of them is a buffer that is better sent beside the pickle."""
    for value in values:
        if type(value) in LARGE and (type(value) is memoryview or cython.cast(uint64_t, len(value)) >= 16384):
            return True
    return False


class TaskState:
    """What a future of an executor is made of: the fields that `concurrent.futures.Future` knows, made when somebody asks
    for them. A future that nobody waits for costs no condition."""

    def __cinit__(self):
        self._state = PENDING

    def __init__(self):
        pass

    @property
    def _condition(self):
        if self.condition is None:
            made = Condition()
            if self.condition is None:
                self.condition = made
        return self.condition

    @property
    def _waiters(self):
        if self.waiters is None:
            self.waiters = []
        return self.waiters

    @property
    def _done_callbacks(self):
        if self.callbacks is None:
            self.callbacks = []
        return self.callbacks

    @property
    def _result(self):
        self.read()
        return self.value

    @_result.setter
    def _result(self, value):
        self.value = value

    @property
    def _exception(self):
        self.read()
        return self.error

    @_exception.setter
    def _exception(self, error):
        self.error = error

    def read(self):
        """Makes the result, or the exception, of what has come; once."""
        payload = self.payload
        if payload is None:
            return 0
        value = error = None
        owner = self.inbox.owner
        try:
            if self.kind == DIED:
                error = owner.died(self)
            elif isinstance(payload, BaseException):
                error = payload
            else:
                value = unpack(loads, payload, 0, self.head, self.count)
                if self.kind == ERROR:
                    error, value = owner.remote_error(value), None
        except KeyboardInterrupt:
            raise  # not the answer's: it can be read again
        except BaseException as failure:
            error = owner.unreadable(self, failure)
        if self.payload is payload:
            self.value = value
            self.error = error
            self.payload = None
            self.call = None
            self.inbox = None
        return 0

    def answer(self, kind, payload, head, count):
        """The answer has come: FINISHED, in one go for all other threads."""
        self.kind = kind
        self.payload = payload
        self.head = head
        self.count = count
        self._state = FINISHED
        self.parcel = None
        if kind == RESULT:
            self.call = None
        return 0

    def result(self, timeout=None):
        """As `concurrent.futures.Future.result`."""
        if self._state is not FINISHED:
            self.wait_for(timeout)
        self.read()
        if self.error is not None:
            raise self.error
        return self.value

    def exception(self, timeout=None):
        """As `concurrent.futures.Future.exception`."""
        if self._state is not FINISHED:
            self.wait_for(timeout)
        self.read()
        return self.error

    def wait_for(self, timeout):
        """Until it is done. TimeoutError, CancelledError."""
        inbox = self.inbox
        start: int64_t = now_ns()
        if inbox is not None:
            inbox.owner.check_not_forked()
            if inbox.attendant == PyThread_get_thread_ident():
                # In a callback: nobody else would take the answer. With a condition, whoever takes it all the same, or
                # cancels the task, wakes this thread.
                self.condition = self._condition
                inbox.owner.attend_for(self, timeout)
                timeout = 0
            if timeout is None:
                if inbox.lead_for(self, MOST_PATIENCE):
                    return
            elif timeout > 0:
                if inbox.lead_for(self, min(MOST_PATIENCE, int(timeout * 1e9))):
                    return
                timeout -= (now_ns() - start) / 1e9
        with self._condition:
            if self._state is PENDING or self._state is RUNNING:
                self._condition.wait(timeout)
                if inbox is not None and inbox.patience != 0:
                    # Would looking on have been worth it?
                    took: int64_t = now_ns() - start
                    inbox.patience = MOST_PATIENCE if took < MOST_PATIENCE else max(inbox.patience // 2, LEAST_PATIENCE)
            if self._state == CANCELLED or self._state == CANCELLED_AND_NOTIFIED:
                raise CancelledError
            if self._state != FINISHED:
                raise TimeoutError

    def finish(self, kind, payload, head, count):
        """As `answer`, for a future that somebody waits for, or with callbacks: they are told."""
        with self._condition:
            if self._state is not PENDING and self._state is not RUNNING:
                return
            self.answer(kind, payload, head, count)
            for waiter in self._waiters:
                if kind == RESULT:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        self._invoke_callbacks()


class Inbox(Dispatcher):
    """The parent's side: makes tasks, sends them, takes answers.

    `owner` the executor's inner part: `died(future)`, `remote_error(value)` and `unreadable(future, error)` make exceptions,
    `too_large(size)` and `no_room(status)` too; `check()` and `check_not_forked()` raise if tasks, or results, cannot be had
    here. `make` makes a future. `out` sends to the workers' queue.
    """

    def __init__(self, s, names, report, owner, make, out: PartsSender, task_type: int, window: int, dumps, by_name):
        Dispatcher.__init__(self, s, 0, names, report)
        self.owner = owner
        self.make = make
        self.out = out
        self.task_type = task_type
        self.window = window
        self.futures = {}
        self.overflow = deque()
        self.slow = deque()
        self.known = {}
        self.dumps = dumps
        self.by_name = by_name
        self.limit = out.s.nr_spans * SPAN_SIZE // 2
        self.budget = Budget(s.nr_spans * SPAN_SIZE // 4)
        self.patience = MOST_PATIENCE

    def name_of(self, fn):
        """The pickle of a function that goes by its name, made once; None for what may change, or has no name."""
        kind = type(fn)
        if not self.by_name or not (
            kind is FunctionType or (kind is BuiltinFunctionType and type(fn.__self__) is ModuleType)
        ):
            return None
        name = self.known.get(fn)
        if name is None:
            name = self.dumps(fn, 5)
            if len(self.known) >= KNOWN_MAX:
                self.known.clear()
            self.known[fn] = name
        return name

    def submit(self, fn, args, kwargs):
        """A task, on its way or waiting to be: its future."""
        if forked(self.s.world) or self.broken is not None:
            self.owner.check()
        f: TaskState = self.make()
        f.inbox = self
        f.call = (fn, args, kwargs)
        if large_among(args) or (kwargs and large_among(kwargs.values())):
            args, kwargs = self.owner.outgoing(args, kwargs)
        if not self.over:
            self.out.wake()
        try:
            name: bytes = self.name_of(fn)
            if name is None:
                f.flags = WITH_FUNCTION
                f.parcel = pack(self.dumps, (fn, args, kwargs), b"")
            else:
                f.prefix = len(name)
                if kwargs:
                    f.flags = HAS_KWARGS
                    f.parcel = pack(self.dumps, (args, kwargs), name)
                else:
                    f.parcel = pack(self.dumps, args, name)
            if f.parcel.size > self.limit:
                raise self.owner.too_large(f.parcel.size, self.limit)
        except Exception as error:
            f.inbox = None
            f.call = None
            f.set_exception(error)
            return f
        # Once more, since pickling lets other threads go on. From here until the task is in `futures`, or in `overflow`,
        # none does: who ends the executor finds it there. Without this look it would wait for ever.
        if self.over or self.broken is not None:
            self.owner.check()
        self.last_id += 1
        f.id = self.last_id
        if self.overflow or self.in_flight >= self.window or not self.send(f):
            self.overflow.append(f)
        return f

    def send(self, f):
        """Sends a task. False if there is no room for it now; what is on its way will make some."""
        parcel = f.parcel
        count: uint64_t = 0 if parcel.buffers is None else len(parcel.buffers)
        head: uint64_t = len(parcel.head)
        self.futures[f.id] = f
        status: uint64_t = self.out.offer(self.task_type, f.flags | count, f.prefix, f.id, head, parcel)
        if status == OK:
            self.in_flight += 1
            f.sent = True
            f.parcel = None
            return True
        if (status == FULL or status == BUSY) and self.in_flight != 0:
            self.futures.pop(f.id, None)
            return False
        self.settle(f, ERROR, self.owner.no_room(status, parcel.size), 0, 0)
        self.futures.pop(f.id, None)  # only now, as in `deliver`
        if self.closing:
            self.wake()
        return True

    def feed(self):
        """Sends what waits, as far as there is room."""
        while self.overflow and self.in_flight < self.window:
            f: TaskState = self.overflow.popleft()
            if f._state is PENDING and not self.send(f):
                self.overflow.appendleft(f)
                break
        return 0

    def withdraw(self, f: TaskState, taken_back: cython.bint) -> bool:
        """A task that will not run: one that has not been sent, or whose event the caller has `taken_back`. Its future is
        CANCELLED then. False if it must be taken back first."""
        if f._state is not PENDING or (f.sent and not taken_back):
            return False
        f._state = CANCELLED
        f.parcel = None
        if taken_back:
            # Not if its answer is there, too, and counted: its worker died behind that, and its event was delivered again.
            if self.futures.pop(f.id, None) is not None:
                self.in_flight -= 1
            self.feed()
        if self.closing or self.slow or f.condition is not None:
            self.wake()  # feeding may have failed a future that somebody is to be told of; a callback may wait for this one
        return True

    def done_so_far(self) -> int:
        """How many tasks have ended."""
        return self.last_id - len(self.futures) - len(self.overflow)

    def give_up(self, error) -> None:
        """Every task that is not done fails with this: no workers are left for them. No more can be made."""
        self.broken = error
        left = [*self.futures.values(), *self.overflow]
        self.futures.clear()
        self.overflow.clear()
        self.in_flight = 0
        for f in left:
            self.settle(f, ERROR, error, 0, 0)

    def settle(self, f, kind, payload, head, count):
        """An answer for a future. At once if nobody looks at it through its condition: no Python code runs between that
        look and FINISHED, so nobody can begin to wait in between."""
        if f.condition is None and (f._state is PENDING or f._state is RUNNING):
            f.answer(kind, payload, head, count)
        else:
            self.slow.append((f, kind, payload, head, count))
        return 0

    def deliver(self, cur, at):
        """An answer, or the news of a worker's death with a task in its hands."""
        s = self.s
        kind: uint64_t = ld32(s.mem, at + SL_ARG2)
        number: uint64_t = ld64(s.mem, at + SL_ARG3)
        head: uint64_t = ld64(s.mem, at + SL_ARG4)
        f: TaskState
        if kind == DEATH:
            put_done(s, cur, cur.taken)
            f = self.futures.get(number)
            if f is not None:
                f.death = head
            return 0
        ev: Event = Event.__new__(Event)
        ev.s = s
        ev.names = self.names
        good: cython.bint = fill_event(s, ev, at)
        put_done(s, cur, cur.taken)
        if not good:
            self.bump(VCPD_DROPPED, 1)
            return 0
        self.bump(VCPD_HANDLED, 1)
        f = self.futures.get(number)
        if f is not None:  # else a second answer: its worker has died behind the first
            payload = contents(ev, self.budget)
            self.settle(f, kind, payload, head, ev.arg1)
            payload = None
            # Only now: the collector may have run Python code in the lines before, and who ends the executor meanwhile waits
            # for what is here. Without it nobody would be left to tell those who wait for this one.
            if self.futures.pop(number, None) is not None:
                self.in_flight -= 1
        ev.release()
        self.feed()
        return 0

    # Who leads it

    def come_online(self):
        """The vcore runs: in this thread, whoever slept for it."""
        s = self.s
        at: uint64_t = map_at(s, 0)
        w: uint64_t = lda64(s.mem, at)
        if vc_state(w) == VC_OFFLINE:
            # Its own host gives it the core, as `host_vcore` does; who sleeps for it may sleep on.
            cas64(s.mem, at, w, vc_next(w, VC_STARTING, s.me))
        vcore_entry(self)
        return 0

    def leave(self):
        """Stops looking; whoever sends from now on wakes the executor's own thread. If there is no end of answers, that one
        goes on with them now."""
        tries: cython.int = 0
        s = self.s
        while not vcore_yield(self):
            tries += 1
            if tries == 3:
                break
            work(self)
        self.leading = False
        if tries == 3:
            # The word changes, so that who is about to sleep on it does not, and who does is woken.
            at: uint64_t = map_at(s, 0)
            w: uint64_t = lda64(s.mem, at)
            cas64(s.mem, at, w, vc_next(w, vc_state(w), w >> 32))
            futex_wake(s.mem, at, 1)
        elif (self.slow or self.closing) and self.attendant != PyThread_get_thread_ident():
            startcore(s, 0)  # its own thread has something to do: to tell somebody, or to see that all is done
        return 0

    def lead_for(self, f, most_ns):
        """Takes answers in the calling thread until this future's is there, or its patience is at an end. Whether it is."""
        if self.leading or self.patience == 0:
            return False
        s = self.s
        self.leading = True
        try:
            self.come_online()
            deadline: int64_t = now_ns() + min(self.patience, most_ns)
            while True:
                while work(self):
                    pass
                if f._state is not PENDING and f._state is not RUNNING:
                    return f._state is FINISHED
                n: uint64_t = watch(self, self.watches)
                if n == NO_VCORE:
                    continue
                found: cython.bint = False
                with cython.nogil:
                    found = spin_in_turns(s, 0, self.watches, n, deadline)
                if not found:
                    return False
        finally:
            self.leave()

    def attend(self, f: TaskState = None, timeout_ns: int64_t = -1):
        """The executor's own thread: takes answers whenever nobody else does, and sleeps while there are none. Returns when
        `slow` has something, when this future has its answer, when it has taken all that had come, or when it was woken; at
        once if `wake` was called since it last did so."""
        self.attendant = PyThread_get_thread_ident()
        s = self.s
        at: uint64_t = map_at(s, 0)
        found: cython.bint = False
        w: uint64_t
        while not self.slow and (f is None or f._state is PENDING or f._state is RUNNING):
            w = lda64(s.mem, at)
            if not self.leading and is_running(vc_state(w)):
                self.leading = True
                self.come_online()
                work(self)
                self.leave()
                found = True  # maybe the last answer of all, so the caller looks before anybody sleeps
                continue
            # Read after the word: a `wake` that comes later changes it, and one that came before would be slept through.
            if found or self.poked:
                self.poked = False
                return
            found = True
            with cython.nogil:
                futex_wait(s.mem, at, w, timeout_ns)

    def wake(self):
        """Has `attend` return, or the next one that is called."""
        s = self.s
        self.poked = True  # pairs with the look in `attend`
        at: uint64_t = map_at(s, 0)
        w: uint64_t = lda64(s.mem, at)
        cas64(s.mem, at, w, vc_next(w, vc_state(w), w >> 32))
        futex_wake(s.mem, at, 1)
