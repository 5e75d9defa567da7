"""A vcore whose host runs an event loop: `async def` handlers are its tasks.

`_turn`, a callback of the loop, is vcore context: it takes what waits and handles it; what goes on as a task keeps its
message in hand. It comes again with the loop's next round as long as it finds something, between the steps of the tasks.
When it finds nothing the vcore yields, as any does, and sleeps in the loop's poll (`parlib/poll`): a byte in its FIFO calls
`_woken`. Tasks run with notifications off, as handlers do: nothing interrupts them.

A vcore that is to end hosts nothing any more from that moment, so that others take its mail and its queues; its process
stays until the tasks have ended. With "now" they are cancelled, and the events of those that end by that wait again.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
import types
from collections.abc import Callable, Generator
from typing import Any

from ..front.dispatch import Hand
from ..kern import const
from ..kern.layout import vcpd_at
from ..parlib import vcore as parlib
from ..parlib.poll import come_back, sleep_in_poll
from . import forks
from .worker import VCoreHost

log = logging.getLogger("upcall")
NO_ROOM_S = 1.0
"""A file system that was full tells nobody when it is not: so often a vcore that holds dead letters tries again."""


class LoopHost(VCoreHost):
    """One vcore's host, with an event loop."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        definition, dispatcher = self.definition, self.dispatcher
        self.has_fifo = True
        dispatcher.start_task = self._start_task
        dispatcher.max_tasks = definition.max_concurrent
        dispatcher.blocked_ns = int(definition.slow_callback_ms * 1e6)
        self.tasks: dict[asyncio.Task[None], Hand | None] = {}
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
        self.ended: asyncio.Future[None] = running.create_future()
        running.add_reader(self.fifo, self._woken)
        try:
            for function in self.definition.mains:
                main = running.create_task(self._main(function))
                self.mains.add(main)
                main.add_done_callback(self.mains.discard)
            self._again()
            while not self.ended.done():
                await self._wait([self.ended])
            self.ended.result()
            self._cancel(self.mains)
            while self.tasks or self.mains:
                await self._wait([*self.tasks, *self.mains])
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
            self._count(const.VCPD_WAKEUPS)
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
            self._again()
        elif stop and not self.tasks and not calling:
            self._end()
        elif not parlib.vcore_yield(dispatcher):
            self._again()
        else:
            self.parked = True
            self._count(const.VCPD_PARKS)
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

    def _count(self, counter: int) -> None:
        at = vcpd_at(self.seg, self.vcoreid) + counter
        self.segment.put_u64(at, self.segment.u64(at) + 1)

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

    def _start_task(self, hand: Hand, awaitable: Any, handler: Any) -> None:
        name = getattr(handler, "__qualname__", repr(handler))
        task = self.running.create_task(self._handle(hand, awaitable, handler), name=f"{self.report.who}: {name}")
        self.tasks[task] = hand
        task.add_done_callback(self._ended)

    async def _handle(self, hand: Hand, awaitable: Any, handler: Any) -> None:
        """A handler's task. Whatever it ends with, its event is done; if it ends because we cancelled it, the event waits
        again."""
        again = False
        task = asyncio.current_task()
        assert task is not None

        def check(seconds: float) -> None:
            if seconds * 1e9 > self.dispatcher.blocked_ns:
                self.report.blocked(hand.event, handler, seconds)

        try:
            await stepwise(awaitable, check, self.end_forked_child)
        except GeneratorExit:
            raise  # the loop is gone: so is this process, and the event is in dead hands
        except asyncio.CancelledError as error:
            again = self.cancelling
            if not again:
                self.dispatcher.failed(hand.event, error)
        except BaseException as error:
            self.dispatcher.failed(hand.event, error)
        self.tasks[task] = None
        self._done_with(hand, again)

    def _ended(self, task: asyncio.Task[None]) -> None:
        hand = self.tasks.pop(task)
        if hand is not None:  # cancelled before its first step
            if not self.cancelling:
                self.dispatcher.failed(hand.event, asyncio.CancelledError())
            self._done_with(hand, self.cancelling)
        if self.stopping():
            self._again()

    def _done_with(self, hand: Hand, again: bool) -> None:
        held_up = self.dispatcher.full or self.dispatcher.bit_task
        self.dispatcher.done_with(hand, again)
        if held_up:
            self._again()

    def _cancel_tasks(self) -> None:
        if not self.cancelling:
            self.cancelling = True
            self._cancel(self.tasks)

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


@types.coroutine
def stepwise(
    awaitable: Any, took: Callable[[float], None], check_child: Callable[[BaseException | None], None]
) -> Generator[Any, Any, Any]:
    """Awaits, and tells after each step how many seconds it took; and whether it was a forked child that came back."""
    # Of other awaitables only `__await__` is known: what it returns need have no `send`, `throw` or `close`.
    steps = awaitable if isinstance(awaitable, types.CoroutineType) else _awaited(awaitable)
    go_on: Callable[[Any], Any] = steps.send
    what: Any = None
    while True:
        start = time.perf_counter()
        try:
            waits_for = go_on(what)
        except StopIteration as stop:
            check_child(None)
            return stop.value
        except BaseException as error:
            check_child(error)
            raise
        finally:
            took(time.perf_counter() - start)
        check_child(None)
        try:
            what = yield waits_for
            go_on = steps.send
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:
            go_on, what = steps.throw, error
