"""A vcore whose host runs an event loop: `async def` handlers are its tasks.

`_turn`, a callback of the loop, is vcore context: it takes what waits and handles it; what goes on as a task keeps its
message in hand. It comes again with the loop's next round as long as it finds something, between the steps of the tasks, and
a little longer if the loop is awake anyhow. Else the vcore yields, as any does, and sleeps in the loop's poll
(`parlib/poll`): a byte in its FIFO calls `_woken`. Tasks run with notifications off, as handlers do: nothing interrupts
them.

A new task begins with the next round of the loop: as long again as all the rest that an event needs. So one is made before
there is an event, and waits at a `Gate`; the first event of a turn opens it, and its handler's first step is taken at once.

A vcore that is to end hosts nothing any more from that moment, so that others take its mail and its queues; its process
stays until the tasks have ended. With "now" they are cancelled, and the events of those that end by that wait again.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import types
from collections.abc import Callable, Sized
from typing import Any

from ..front.hand import Hand
from ..kern import const
from ..parlib import vcore as parlib
from ..parlib.poll import come_back, sleep_in_poll
from . import forks
from .worker import VCoreHost

log = logging.getLogger("upcall")
NO_ROOM_S = 1.0
"""A file system that was full tells nobody when it is not: so often a vcore that holds dead letters tries again."""


class Gate:
    """Where a task waits that was made before its event. All that asyncio asks of a future, but that `open` has the task go
    on at once, inside of the callback that runs, and not with the loop's next round."""

    def __init__(self, host: LoopHost, hand: Hand) -> None:
        self.host, self.hand = host, hand
        self.cancelled = False
        self._asyncio_future_blocking = True

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """As a future's."""
        return self.host.running

    def add_done_callback(self, step: Callable[[Gate], None], *, context: contextvars.Context) -> None:
        """The task waits: `step` takes its next step."""
        self.step, self.context = step, context
        self.host.dispatcher.ready = self.hand

    def open(self) -> None:
        """The task goes on."""
        self.context.run(self.step, self)

    def cancel(self, msg: Any = None) -> bool:
        """The task is cancelled. False if it does not wait here."""
        if self.host.dispatcher.ready is not self.hand:
            return False
        self.host.dispatcher.ready = None
        self.cancelled = True
        self.host.running.call_soon(self.step, self, context=self.context)
        return True

    def result(self) -> None:
        """As a future's."""
        if self.cancelled:
            raise asyncio.CancelledError


class LoopHost(VCoreHost):
    """One vcore's host, with an event loop."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        definition, dispatcher = self.definition, self.dispatcher
        self.has_fifo = True
        dispatcher.start_task = self._start_task
        dispatcher.max_tasks = definition.max_concurrent
        dispatcher.blocked_ns = int(definition.slow_callback_ms * 1e6)
        self.tasks: dict[Hand, asyncio.Task[None]] = {}
        self.prepared: asyncio.Task[None] | None = None
        self.mains: set[asyncio.Task[None]] = set()
        self.scheduled = self.parked = self.left = self.cancelling = False

    def _be_told(self) -> None:
        sleep_in_poll(self.dispatcher)

    def loop(self) -> None:
        """Until a stop: the event loop."""
        if self.signals:
            # A signal that comes just before the poll ends it: its byte is in the FIFO.
            forks.wake_by(self.fifo_writer)
        try:
            with asyncio.Runner(loop_factory=self.definition.loop) as runner:
                runner.run(self._live())
        finally:
            if self.signals:
                forks.wake_by(-1)

    async def _live(self) -> None:
        self.running = running = asyncio.get_running_loop()
        self.context = contextvars.copy_context()
        # What asyncio's own loops are to call next: with something there they go round anyhow, and a look is cheaper than a
        # byte. Other loops do not tell.
        self.callbacks: Sized = getattr(running, "_ready", ())
        self.ended: asyncio.Future[None] = running.create_future()
        running.add_reader(self.fifo, self._woken)
        try:
            for function in self.definition.mains:
                main = running.create_task(self._main(function))
                self.mains.add(main)
                main.add_done_callback(self.mains.discard)
            self._prepare()
            self._again()
            while not self.ended.done():
                await self._wait([self.ended])
            self.ended.result()
            self._cancel(self.mains)
            while self.tasks or self.mains:
                await self._wait([*self.tasks.values(), *self.mains])
        finally:
            running.remove_reader(self.fifo)

    @staticmethod
    async def _wait(until: list[asyncio.Future[None]]) -> None:
        """A program that cancels all tasks of its loop has not meant this one."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)

    # ---- vcore context -----------------------------------------------------------------------------------------------

    def _again(self) -> None:
        """A look with the loop's next round."""
        if not self.scheduled and not self.left:
            self.scheduled = True
            self.running.call_soon(self._turn, context=self.context)

    def _woken(self) -> None:
        """There is a byte in the FIFO: somebody has given this vcore a core, or something is to be looked at."""
        self._empty_fifo()
        if self.left:
            if self.stopping() == const.STOP_NOW:
                self._cancel_tasks()
        elif not self.scheduled:
            self._turn()

    def _turn(self) -> None:
        self.scheduled = False
        if self.left:
            return
        try:
            self._look()
        except BaseException as error:
            if not self.ended.done():
                self.ended.set_exception(error)

    def _look(self) -> None:
        dispatcher = self.dispatcher
        if self.parked:
            if not come_back(dispatcher):
                return
            self.parked = False
            dispatcher.count(const.VCPD_WAKEUPS)
        stop = self.stopping()
        # Before the looks: of a call that has ended by now they find the event.
        calling = bool(stop or dispatcher.leaving) and self._calls_run()
        if stop == const.STOP_NOW:
            self._end()
        elif dispatcher.leaving:
            if parlib.handle_mbox(dispatcher, dispatcher.priv):
                self._again()
            elif not calling:
                self._end()
        elif dispatcher.look() + self.run_threads() or dispatcher.retry_held() or (stop and self._look_once_more()):
            if self.prepared is None:
                self._prepare()
            self._again()
        elif stop and not self.tasks and not calling:
            self._end()
        elif (self.callbacks and dispatcher.looks_on()) or not parlib.vcore_yield(dispatcher):
            self._again()
        else:
            self.parked = True
            dispatcher.count(const.VCPD_PARKS)
            if dispatcher.holds():
                self.running.call_later(NO_ROOM_S, self._again, context=self.context)

    def _look_once_more(self) -> int:
        """Before a drain ends: a full look."""
        parlib.look_everywhere(self.dispatcher)
        return self.dispatcher.look() + self.run_threads()

    def _calls_run(self) -> bool:
        """Whether calls are under way; the loop goes on meanwhile, since they may need it."""
        calls = self.handle.calls.get(self.vcoreid)
        if calls is None:
            return False
        calls.after = self._call_over
        return calls.running()

    def _call_over(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.running.call_soon_threadsafe(self._again)

    def _end(self) -> None:
        """Takes no more; what is in hand ends, or is cancelled."""
        self.leave()
        if self.stopping() == const.STOP_NOW:
            self._cancel_tasks()
        self.ended.set_result(None)

    def leave(self) -> None:
        """Hosts the vcore no longer; once."""
        if not self.left:
            self.left = True
            super().leave()

    # ---- tasks -------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Makes the task of the next event: it is there when the loop has been round."""
        hand = Hand()
        hand.host, hand.gate = self, Gate(self, hand)
        self.prepared = self.running.create_task(hand, name=f"{self.report.who}: no event yet")

    def _start_task(self, hand: Hand, awaitable: Any) -> None:
        hand.steps = awaitable if isinstance(awaitable, types.CoroutineType) else _awaited(awaitable)
        name = f"{self.report.who}: {getattr(hand.handler, '__qualname__', hand.handler)}"
        task = self.prepared
        if hand.gate is not None and task is not None:
            task.set_name(name)
            self.tasks[hand] = task
            gate, hand.gate, self.prepared = hand.gate, None, None
            gate.open()
            return
        hand.host = self
        task = self.running.create_task(hand, name=name)
        if not task.done():  # an eager loop may have run it
            self.tasks[hand] = task

    def task_over(self, hand: Hand, error: BaseException | None) -> None:
        """A task's last step. Whatever it ends with, its event is done; if it ends because we cancelled it, the event waits
        again."""
        dispatcher = self.dispatcher
        self.tasks.pop(hand, None)
        again = self.cancelling and isinstance(error, asyncio.CancelledError)
        if error is not None and not again:
            dispatcher.failed(hand.event, error)
        held_up = dispatcher.full or dispatcher.bit_task
        dispatcher.done_with(hand, again)
        if held_up or self.stopping():
            self._again()

    def task_unused(self, hand: Hand) -> None:
        """The task of the next event was cancelled: by the end of the loop, or a program that cancels all."""
        self.dispatcher.ready = self.prepared = None

    def _cancel_tasks(self) -> None:
        if not self.cancelling:
            self.cancelling = True
            self._cancel(self.tasks.values())

    def _cancel(self, tasks: Any) -> None:
        for task in list(tasks):
            task.cancel()

    async def _main(self, function: Any) -> None:
        try:
            await function()
        except asyncio.CancelledError:
            pass
        except Exception as error:
            log.error("%s: main failed", self.report.who, exc_info=error)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
