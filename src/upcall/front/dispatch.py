"""From a TAKEN slot to a handler and back: the vcore that Python programs run on.

`Dispatcher` is the `VCore` of a worker. For each message it looks up the handler, makes the event, runs the handler in
vcore context, and makes the slot DONE when the handler returns or raises. What must be written before a handler runs
(backlog, who answers for the queue) is in `parlib/vcore`; here is only when: each event type starts as a slow one, is
a fast one after FAST_STREAK short handlers, and slow again after a long one. Of the fast ones one handler in 16 is timed.

A handler that returns an awaitable (an `async def`) goes on as a task of the host's event loop: its message stays TAKEN,
in a `Hand` (`hand`), until the task has ended, or is cancelled and the message put back.
"""

import cython

CO_ITERABLE_COROUTINE = cython.declare(cython.int, 0x100)
TURN_NS = cython.declare(uint64_t, 1000)

KEEP = object()
"""What a handler returns whose event somebody else will say `done_with` of."""
ROUND_NS = cython.declare(uint64_t, 2000000)
LOOK_ON_NS = cython.declare(uint64_t, 1000000)
WAIT_NS = cython.declare(uint64_t, 3000)
WAITS = cython.declare(cython.int, 8)
WORTH = cython.declare(cython.Py_ssize_t, 32)
"""A batch of at least two waits so long for more, and again, so often at most, if so many came."""


def wait_ns(ns):
    """Lets so much time pass."""
    end: uint64_t = now_ns() + ns
    while now_ns() < end:
        pause()
    return 0


def spin_in_turns(s, vcoreid, watches, n, deadline):
    """`spin`, with a turn now and then for whoever else wants this CPU: it may be the one that is looked for, woken on the
    waker's own CPU because the others were busy."""
    turn: uint64_t = now_ns()
    while n <= WATCH_MAX and turn < deadline:
        turn += TURN_NS
        if spin(s, vcoreid, watches, n, turn if turn < deadline else deadline):
            return True
        sched_yield()
        turn = now_ns()
    return False


class Dispatcher(VCore):
    """Runs handlers. `names` tells type and queue names; `report` is told of what went wrong: `report.failed(event,
    error)`, `report.unhandled(event)`, `report.corrupt(queue_number)`; `report.dead(event, kept)`: not delivered again, and
    `kept` as a dead letter or not; `report.no_room(event)` for a dead letter; `report.impostor(error)` ends a forked child
    that has returned from a handler; `report.blocked(event, handler, seconds)`: a handler has held up the loop.

    With an event loop: `start_task(hand, awaitable)` is the host's; `ready` is the hand of a task that it has made for the
    next event, if there is one; at `max_tasks` the vcore is full; what holds up the loop for `blocked_ns` is reported."""

    def __init__(self, s: Seg, vcoreid: uint64_t, names: object, report: object):
        VCore.__init__(self, s, vcoreid)
        self.names = names
        self.report = report
        self.handlers = {}
        self.batches = {}
        self.table = {}
        self.batch_table = {}
        self.last_key = ~cython.cast(uint64_t, 0)
        self.vcpd = vcpd_at(s, vcoreid)
        self.watches = Watches()
        self.letter = Msg()
        self.held = []
        self.max_tasks = 1

    def handle(self, queue: object, type_number: int, handler: object, batch_max: int) -> None:
        """Registers a handler for a type, in one queue (its number + 1; 0: vcore mail) or in all (None). `batch_max` > 0:
        it is given batches."""
        key = (queue, type_number)
        if batch_max:
            self.batches[key] = (handler, batch_max)
            self.handlers.pop(key, None)
        else:
            self.handlers[key] = handler
            self.batches.pop(key, None)
        self.table = {}
        self.batch_table = {}
        self.last_key = ~cython.cast(uint64_t, 0)

    def find(self, key):
        """The handler for (queue << 16 | type): a callable, or None with a batch handler in `batch_table`, or None."""
        queue, number = key >> 16, key & 0xFFFF
        for scope in (queue, None):
            if (scope, number) in self.batches:
                self.batch_table[key] = self.batches[(scope, number)]
                break
            if (scope, number) in self.handlers:
                self.table[key] = self.handlers[(scope, number)]
                return self.table[key]
        if queue and self.names.queue_handler(queue) is not None and key not in self.batch_table:
            self.table[key] = self.names.queue_handler(queue)
            return self.table[key]
        self.table[key] = None
        return None

    def deliver(self, cur, at):
        s = self.s
        where: uint64_t = cur.taken
        number: uint64_t = ld16(s.mem, at + SL_TYPE)
        queue: uint64_t = ld16(s.mem, at + SL_QUEUE)
        # Numbers of no table are no keys, neither of ours nor of the segment's.
        if number >= s.max_types or queue > s.max_queues:
            self.drop(cur, where, queue)
            return 0
        if deaths_of(s, at) != 0 and self.lay_aside(cur.mbox, where, queue):
            return 0
        both: uint64_t = (queue << 16) | number
        if both != self.last_key:
            key: object = both
            got = PyDict_GetItemWithError(self.table, key)
            handler = cython.cast(object, got) if got != cython.NULL else self.find(key)
            if handler is None and key in self.batch_table:
                self.deliver_batch(cur, where, key, number, queue)
                return 0
            self.last_key = both
            self.last_handler = handler
        else:
            handler = self.last_handler
        # The event of last time is used again if its handler did not keep it: two references, this one and `spare`.
        ev: Event = self.spare
        if ev is None or Py_REFCNT(ev) != 2:
            ev = Event.__new__(Event)
            ev.s = s
            ev.names = self.names
            self.spare = ev
        if not fill_event(s, ev, at):
            self.drop(cur, where, queue)
            return 0
        if handler is None:
            self.nobody(ev)
        else:
            goes_on = self.run(cur, queue, number & 1023, handler, ev)
            if goes_on is not None:
                self.spare = None
                self.keep(cur, where, queue, ev, goes_on, handler)
                return 0
        self.finish(cur, where, ev)
        return 0

    def keep(self, cur, where, queue, event, awaitable, handler):
        """The event stays in hand: its handler goes on as a task."""
        hand: Hand = self.ready
        if hand is None:
            hand = Hand.__new__(Hand)
        self.ready = None
        hand.s = self.s
        hand.cur = cur
        hand.where = where
        hand.event = event
        hand.handler = handler
        hand.report = self.report
        hand.blocked_ns = self.blocked_ns
        self.in_flight += 1
        if queue != 0:
            self.tasks.add(queue - 1)
        if self.in_flight >= self.max_tasks:
            now_full(self)
        self.start_task(hand, awaitable)
        return 0

    def done_with(self, hand: Hand, again: bool) -> None:
        """A task has ended: what it had in hand is done. `again`: it was cancelled, its event waits anew."""
        event: object = hand.event
        if hand.where == 0:
            bit_done(self, again)
            self.bump(VCPD_HANDLED, 0 if again else 1)
        elif isinstance(event, EventBatch):
            batch: EventBatch = event
            if again:
                batch.put_back(hand.cur)
            else:
                batch.settle(hand.cur)
                batch.release_kept()
                self.bump(VCPD_HANDLED, batch.n)
                self.bump(VCPD_BATCHES, 1)
        elif again:
            ev: Event = event
            ev.let_go()
            put_back(self.s, hand.cur.mbox, hand.where)
        else:
            self.finish(hand.cur, hand.where, event)
        self.in_flight -= 1
        if self.full and self.in_flight < self.max_tasks:
            no_longer_full(self)
        tell_drainers(self.s)

    def failed(self, event: object, error: object) -> None:
        """A task has ended with an exception."""
        self.bump(VCPD_ERRORS, 1)
        self.report.failed(event, error)

    def look(self) -> int:
        """One round of vcore context, no longer than the loop can do without us. Returns how much was handled."""
        now: uint64_t = now_ns()
        self.until = now + ROUND_NS
        found: int64_t = work(self)
        if found != 0:
            self.look_on_until = now + LOOK_ON_NS
        return found

    def looks_on(self) -> bool:
        """Whether to look with the loop's next round, too, though nothing was found, if there is one anyhow: only a while,
        since much is done by who yields (`vcore_yield`); not without a core, and not while waiting for room."""
        running: cython.bint = is_running(vc_state(ld64(self.s.mem, map_at(self.s, self.vcoreid))))
        return running and len(self.held) == 0 and now_ns() < self.look_on_until

    def finish(self, cur, where, ev):
        """DONE, then the block: died in between, the scavenger finds a block of a dead owner whose slot lets it go."""
        put_done(self.s, cur, where)
        if ev.block != 0:
            ev.release()
        self.bump(VCPD_HANDLED, 1)

    def bump(self, counter, by):
        at: uint64_t = self.vcpd + counter
        st64(self.s.mem, at, ld64(self.s.mem, at) + by)

    def count(self, counter: int) -> None:
        """One more of what the host counts."""
        self.bump(counter, 1)

    def drop(self, cur, where, queue):
        """A slot that holds what no sender writes: done with, counted, reported."""
        put_done(self.s, cur, where)
        self.bump(VCPD_DROPPED, 1)
        self.report.corrupt(queue)

    def lay_aside(self, mbox, where, queue):
        """A message that vcores have died with. True if its queue wants no more of it: it is a dead letter or reported, and
        done; or, without room for a letter, in our hands until there is some. False: its handler is to run again."""
        s = self.s
        at: uint64_t = slot_at(s, where)
        what: uint64_t = verdict(s, queue, deaths_of(s, at))
        if what == ON_DEATH_REDELIVER:
            self.bump(VCPD_REDELIVERED, 1)
            return False
        ev: Event = read_event(s, self.names, at)
        if ev is None:
            settle_message(s, mbox, where)
            self.bump(VCPD_DROPPED, 1)
            self.report.corrupt(queue)
            return True
        if what == ON_DEATH_DEAD_LETTER and post_letter(s, mbox, at, self.letter) != OK:
            self.held.append((mbox, where, queue))
            self.report.no_room(ev)
            return True
        ev.let_go()
        settle_message(s, mbox, where)
        self.bump(VCPD_DEAD_LETTERS if what == ON_DEATH_DEAD_LETTER else VCPD_REPORTED, 1)
        self.report.dead(ev, what == ON_DEATH_DEAD_LETTER)
        return True

    def retry_held(self):
        """Tries again to make dead letters of what there was no room for. True if one of them is settled."""
        if not self.held:
            return False
        # Raised (a full fence) before the tries: pairs with `tell_holders`, which looks at it when room has been made.
        faa32(self.s.mem, self.s.procinfo + PI_WANT_ROOM, 1)
        held: list = self.held
        self.held = []
        for mbox, where, queue in held:
            if not self.lay_aside(mbox, where, queue):
                put_back(self.s, mbox, where)
        return len(self.held) < len(held)

    def holds(self) -> bool:
        """Whether there are messages in hand that there was no room to make dead letters of."""
        return len(self.held) > 0

    def give_back(self):
        """This vcore leaves: what it still holds is others' to make dead letters of, or to handle."""
        self.retry_held()
        for mbox, where, _ in self.held:
            put_back(self.s, mbox, where)
        self.held = []
        give_bit_back(self)

    def nobody(self, ev):
        """No handler: reported once per type, counted, done."""
        self.bump(VCPD_UNHANDLED, 1)
        self.report.unhandled(ev)

    def run(self, cur, queue, number, handler, ev):
        """The handler, timed if its type is a slow one or this is its turn; its exception is reported and counted. What it
        returns, if that is for a task."""
        loops: cython.bint = self.start_task is not None
        got: object = None
        thread: cython.bint = queue != 0 and len(self.threads) != 0 and (queue - 1) in self.threads
        slow: cython.bint = thread or self.fast[number] < FAST_STREAK
        timed: cython.bint = slow or loops or (self.streak & 15) == 0
        before_handler(self, cur, queue - 1, slow and queue != 0)
        start: uint64_t = now_ns() if timed else 0
        try:
            if thread:
                got = self.in_uthread_context(handler, ev)
            else:
                got = handler(ev)
            if got is not None and not self.is_awaitable(got):
                got = None
        except BaseException as error:
            if forked(self.s.world):
                self.report.impostor(error)
            got = None
            self.bump(VCPD_ERRORS, 1)
            self.report.failed(ev, error)
        if forked(self.s.world):
            self.report.impostor(None)
        if timed:
            now: uint64_t = now_ns()
            if now - start > LONG_NS:
                self.fast[number] = 0
            elif slow:
                self.fast[number] += 1
            if loops and now > self.until:
                self.enough = True
                if now - start > self.blocked_ns:
                    self.report.blocked(ev, handler, (now - start) / 1e9)
        after_handler(self, queue - 1, slow and queue != 0)
        return got

    def is_awaitable(self, got):
        """Whether a handler's result is for a task. TypeError if there is no loop for it."""
        if got is KEEP:
            return True
        if not cython.cast(cython.bint, PyCoro_CheckExact(got)) and not hasattr(got, "__await__"):
            # Of a `types.coroutine`: awaitable, without `__await__`.
            code = getattr(got, "gi_code", None)
            if code is None or not code.co_flags & CO_ITERABLE_COROUTINE:
                return False
        if self.start_task is None:
            if hasattr(got, "close"):
                got.close()
            raise TypeError(f"a handler returned {got!r}: define it with async def, or give the process a loop=")
        return True

    def deliver_batch(self, cur, where, key, number, queue):
        """Takes what else waits of this type, up to the handler's maximum, and gives it all to the handler at once."""
        s = self.s
        entry: tuple = self.batch_table[key]
        # One that somebody has died with is alone: if its handler kills, no other event is in these hands.
        most: cython.Py_ssize_t = entry[1] if deaths_of(s, slot_at(s, where)) == 0 else 1
        batch: EventBatch = EventBatch.__new__(EventBatch)
        batch.s = s
        batch.names = self.names
        batch.places = cython.cast(cython.pointer(uint64_t), malloc(most * 8))
        if batch.places == cython.NULL:
            raise MemoryError
        batch.places[0] = where
        batch.n = 1
        waits: cython.int = 0
        before: cython.Py_ssize_t = 1
        while batch.n < most:
            at: uint64_t = take_like(s, cur, number, queue)
            if at == 0:
                # On a sender's heels, each slot's cache line goes to and fro between the two: it gets a head start.
                if waits == WAITS or batch.n < before + (1 if waits == 0 else WORTH) or more_waiting(s, cur):
                    break
                before = batch.n
                waits += 1
                wait_ns(WAIT_NS)
                continue
            prefetchw(s.mem, at + 4 * SLOT_SIZE)
            batch.places[batch.n] = cur.taken
            batch.n += 1
        goes_on = self.run(cur, queue, number & 1023, entry[0], batch)
        if goes_on is not None:
            self.keep(cur, where, queue, batch, goes_on, entry[0])
            return 0
        batch.settle(cur)
        batch.release_kept()
        self.bump(VCPD_HANDLED, batch.n)
        self.bump(VCPD_BATCHES, 1)

    def deliver_bit(self, cur, ev_type):
        s = self.s
        ev: Event = Event.__new__(Event)
        ev.s = s
        ev.names = self.names
        ev.type_number = ev_type
        ev.is_bit = True
        queue: uint64_t = 0
        if cur.mbox >= 2 * s.max_vcores:
            queue = cur.mbox - 2 * s.max_vcores + 1
        ev.queue_number = queue
        key: object = (queue << 16) | ev_type
        handler = self.table.get(key) or self.find(key)
        event: object = ev
        if handler is None and key in self.batch_table:
            handler, event = self.batch_table[key][0], [ev]
        if handler is None:
            self.nobody(ev)
        else:
            goes_on = self.run(cur, queue, ev_type & 1023, handler, event)
            if goes_on is not None:
                self.bit_task = True
                self.keep(cur, 0, queue, event, goes_on, handler)
                return 0
        self.bump(VCPD_HANDLED, 1)
        return 0

    def run_thread(self, queue):
        """One event of a THREAD queue, or its bits: taken in vcore context, handled in uthread context. How many."""
        cur = cursor_of(self, queue)
        if cur is None:
            return 0
        poll_queue(self, queue)
        at: uint64_t = take(self.s, cur)
        if at != 0:
            self.deliver(cur, at)
            return 1
        return handle_bits(self, cur)

    @cython.binding(False)
    def on_interrupt(self, signum, frame):
        """The interrupt's signal handler: in user code, vcore context on top of it, the news first; then `interrupted`, the
        host's part, which is told whether it was in user code."""
        entered: cython.bint = not self.in_vcore_context
        if entered:
            disable_notifs(self)
            work(self)
        self.interrupted(entered)

    def let_signals_in(self):
        """Python's signal handlers run here; one may fork, and its child come back."""
        PyErr_CheckSignals()
        if forked(self.s.world):
            self.report.impostor(None)
        return 0

    def turn(self):
        """The vcore's loop, as far as it is compiled: works, looks a while longer, sleeps, until a stop. For a vcore whose
        queues all run in vcore context."""
        s = self.s
        while not self.leaving and ld32(s.mem, s.procinfo + PI_STOP) == 0:
            if work(self) == 0:
                self.idle()
            self.let_signals_in()
        return 0

    def idle(self):
        """Nothing to do: looks a bounded while, then yields and sleeps. True when there is something to do, a core was
        given back, or a signal came in; the caller looks whether to stop."""
        s = self.s
        if self.retry_held():
            return True
        n: uint64_t = watch(self, self.watches)
        if n == NO_VCORE:
            return True
        if self.spin_ns != 0:
            found: cython.bint = False
            deadline: uint64_t = now_ns() + self.spin_ns
            with cython.nogil:
                found = spin_in_turns(s, self.vcoreid, self.watches, n, deadline)
            if found:
                return True
        if not vcore_yield(self):
            return True
        self.sleep()
        return True

    def sleep(self):
        """Parks on the vcoremap word until somebody gives this vcore a core. With a loop, its poll is where it sleeps."""
        if self.start_task is not None:
            return 0
        s = self.s
        at: uint64_t = map_at(s, self.vcoreid)
        # Who makes room for a dead letter gives us a core. A file system that was full tells nobody when it is not: hence
        # once a second a core by ourselves, and another try.
        patience: int64_t = 1000000000 if self.held else -1
        self.bump(VCPD_PARKS, 1)
        while True:
            if self.leaving:
                # The signal that said so came while this vcore had its core: its handler changed nothing that we sleep on.
                startcore(s, self.vcoreid)
                break
            w: uint64_t = ld64(s.mem, at)
            state: uint64_t = vc_state(w)
            # AWAY: it was given a core and did not move; nobody gives it another, it comes back by itself.
            if is_running(state) or state == VC_AWAY or ld32(s.mem, s.procinfo + PI_STOP) != 0:
                break
            self.bump(VCPD_SYSCALLS, 1)
            # A signal that comes meanwhile gives the word its next sequence number: no core.
            wait(s, at, w, vc_next(w, vc_state(w), w >> 32), patience)
            if forked(s.world):
                self.report.impostor(None)
            if patience >= 0 and ld64(s.mem, at) == w and vc_state(w) == VC_OFFLINE:
                startcore(s, self.vcoreid)
        self.bump(VCPD_WAKEUPS, 1)
        vcore_entry(self)
