"""Tasks of an executor, in a worker: the handler that runs them and answers."""

import pickle

loads = pickle.loads
KNOWN_MAX = 1024


class Runner:
    """A worker's side: the handler of tasks.

    `owner`: `begin()` before the first task (raises what keeps tasks from running here), `describe(error)` makes a failure
    ready for sending, `too_large(size)` an exception, `recycle()` ends this worker after the task. `retries` how many deaths
    a task may have seen to be run once more; `most` how many tasks this worker does (0: no end).
    """

    def __init__(self, owner, retries: int, most: int, dumps):
        self.owner = owner
        self.retries = retries
        self.left = most
        self.dumps = dumps
        self.known = {}
        self.nothing = pack(pickle.dumps, None, b"")

    def connect(self, out: PartsSender, done_type: int, s: Seg) -> None:
        """In a worker: where answers go, and the segment that tasks come from."""
        self.out = out
        self.done_type = done_type
        self.limit = out.s.nr_spans * SPAN_SIZE // 2
        self.budget = Budget(s.nr_spans * SPAN_SIZE // 4)

    def function(self, name):
        found = self.known.get(name)
        if found is None:
            found = loads(name)
            if len(self.known) >= KNOWN_MAX:
                self.known.clear()
            self.known[name] = found
        return found

    def __call__(self, ev: Event):
        self.run(ev)
        if self.left > 0:
            self.left -= 1
            if self.left == 0:
                self.owner.recycle()

    def run(self, ev):
        """One task: its answer is sent before its event is done, so a death in between costs at most a second answer, which
        the parent knows by its number."""
        number: uint64_t = ev.arg3
        if ev.redeliveries > self.retries:
            self.out.send_parcel(self.done_type, 0, DIED, number, 0, self.nothing)
            return 0
        parcel: Parcel = self.nothing
        try:
            if not self.begun:
                self.owner.begin()
                self.begun = True
            payload = contents(ev, self.budget)
            count: uint64_t = ev.arg1 & COUNT_MASK
            if ev.arg1 & WITH_FUNCTION:
                fn, args, kwargs = unpack(loads, payload, 0, ev.arg4, count)
                payload = None
                value = fn(*args, **kwargs)
            else:
                fn = self.function(payload[: ev.arg2] if type(payload) is bytes else bytes(payload[: ev.arg2]))
                args = unpack(loads, payload, ev.arg2, ev.arg4, count)
                payload = None
                if ev.arg1 & HAS_KWARGS:
                    args, kwargs = args
                    value = fn(*args, **kwargs)
                else:
                    value = fn(*args)
            args = kwargs = None
            if forked(self.out.s.world):
                return 0
            if value is not None:
                if large_among((value,)):
                    value = self.owner.outgoing(value)
                parcel = pack(self.dumps, value, b"")
                value = None
                if parcel.size > self.limit:
                    raise self.owner.too_large(parcel.size, self.limit)
        except BaseException as error:
            if forked(self.out.s.world):
                raise
            return self.fail(number, error)
        head: uint64_t = len(parcel.head)
        buffers: uint64_t = 0 if parcel.buffers is None else len(parcel.buffers)
        self.out.send_parcel(self.done_type, buffers, RESULT, number, head, parcel)
        return 0

    def fail(self, id, error):
        """Answers with an exception."""
        parcel: Parcel = self.owner.describe(error, self.limit)
        head: uint64_t = len(parcel.head)
        buffers: uint64_t = 0 if parcel.buffers is None else len(parcel.buffers)
        self.out.send_parcel(self.done_type, buffers, ERROR, id, head, parcel)
        return 0


def parcel_of(dumps, value) -> Parcel:
    """`pack`, for the side that is not compiled."""
    return pack(dumps, value, b"")
