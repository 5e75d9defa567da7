"""What a task has in hand, and how it goes through its handler.

A `Hand` is the coroutine of the task that the loop knows: each of its steps is one of the handler's, timed, and whoever
comes out of one is this worker, or ends. After the last one it tells its host (`task_over`), whatever the handler has ended
with. Who asks the task for its coroutine finds the handler's (`__getattr__`).

The first step of a task is taken in the loop's next round, and its event would have to wait for that. So the host may make a
task before there is an event, which waits at the hand's `gate` until there is.
"""

import cython


class Hand:
    """`event`: an event, a batch, or a bit; `handler`: whose task it is; `steps`: the handler's coroutine, None before there
    is an event; `gate`: what the task waits for until then; `host`: is told of its end, `host.task_over(hand, error)`, or
    `host.task_unused(hand)` of one that was cancelled before it had an event."""

    def step(self, error):
        """One step: what the task is to wait for. StopIteration after the last one."""
        if self.steps is None:
            if error is None:
                return self.gate
            self.host.task_unused(self)
            raise error
        waits_for: object = None
        result: cython.pointer(PyObject) = cython.NULL
        over: cython.bint = False
        start: uint64_t = now_ns()
        try:
            if error is not None:
                waits_for = self.steps.throw(error)
                error = None
            else:
                over = PyIter_Send(self.steps, None, cython.address(result)) != PYGEN_NEXT
                waits_for = cython.cast(object, result)
                Py_DECREF(waits_for)
        except StopIteration:
            error = None
            over = True
        except BaseException as raised:
            error = raised
            over = True
        if forked(self.s.world):
            self.report.impostor(error)
        took: uint64_t = now_ns() - start
        if took > self.blocked_ns:
            self.report.blocked(self.event, self.handler, took / 1e9)
        if not over:
            return waits_for
        self.host.task_over(self, error)
        raise StopIteration

    def __next__(self):
        return self.step(None)

    def send(self, value):
        return self.step(None)

    def throw(self, error):
        return self.step(error)

    def close(self):
        """The loop is gone: so is this process, and the event is in dead hands."""
        if self.steps is not None:
            self.steps.close()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __getattr__(self, name):
        return getattr(self.steps, name)
