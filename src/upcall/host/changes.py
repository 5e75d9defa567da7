"""Changes of a running process, step by step: replacing its workers, having more or fewer of them.

A change is a generator that the supervisor's loop runs on whenever anything has happened. It yields a line for whoever
asked for it, or None: nothing more to do until something happens; it returns what was done. What is wanted (how many
vcores, who was asked to end) is written down with the supervisor before a change waits for it, so a change that is
cancelled, since another one came, leaves nothing half told.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from ..errors import SegmentError, UpcallError
from ..kern import const
from ..kern.event import get_vcpd_mbox_priv
from ..kern.layout import evq_at
from ..parlib.mbox import has_bits, waiting_in
from .tables import queues

if TYPE_CHECKING:
    from .supervisor import Supervisor, Worker

log = logging.getLogger("upcall")
Line = dict[str, Any]
Change = Generator[Line | None, None, Line]


class Changes:
    """The change under way, if any. A new one takes its place."""

    def __init__(self) -> None:
        self.change: Change | None = None
        self.say: Callable[[Line], object] = log.debug

    def begin(self, change: Change, say: Callable[[Line], object] = log.debug) -> None:
        """Starts a change; `say` gets its lines, and at last {"ok": ...} or {"error": ...}."""
        self.cancel("another command came meanwhile")
        self.change, self.say = change, say
        self.go_on()

    def cancel(self, why: str) -> None:
        """Ends the change where it is."""
        if self.change is not None:
            self.change.close()
            self._end({"error": f"not finished: {why}", "kind": "UpcallError"})

    def go_on(self) -> None:
        """Runs the change until it waits."""
        while self.change is not None:
            try:
                line = next(self.change)
            except StopIteration as end:
                self._end({"ok": end.value})
            except (UpcallError, ValueError) as error:
                self._end({"error": str(error), "kind": type(error).__name__})
            except Exception as error:
                log.error("a change failed\n%s", traceback.format_exc().rstrip())
                self._end({"error": repr(error), "kind": "UpcallError"})
            else:
                if line is None:
                    return
                self.say(line)

    def tell(self, line: Line) -> None:
        """Something that has happened to a change, for whoever asked for it."""
        if self.change is not None:
            self.say(line)

    def _end(self, line: Line) -> None:
        say, self.change, self.say = self.say, None, log.debug
        say(line)


def restart(of: Supervisor, kill_after: float | None) -> Change:
    """Replaces every worker, one after the other: the next one when the new one is online."""
    replaced: list[Worker] = []
    for worker in [worker for v, worker in sorted(of.workers.items()) if v < of.wanted]:
        yield from _replace(of, worker, kill_after)
        replaced.append(worker)
        for done in replaced:
            _must_run(of, done)  # it may have died since it was online
    return {"restarted": len(replaced)}


def after_take_over(of: Supervisor) -> Change:
    """What a supervisor does with workers that it has taken over: those beyond its vcores end, those of another definition
    are replaced."""
    yield from _end(of, [worker for worker in of.workers.values() if worker.vcoreid >= of.wanted])
    return (yield from replace_others(of))


def replace_others(of: Supervisor) -> Change:
    """Replaces the workers that run another definition, one after the other."""
    while of.others:
        worker = of.workers.get(min(of.others))
        if worker is None or worker.vcoreid >= of.wanted:
            of.others.remove(min(of.others))
        else:
            yield from _replace(of, worker, None)
    return {}


def _replace(of: Supervisor, worker: Worker, kill_after: float | None) -> Change:
    before = worker.starts
    if worker.pid:
        of.ask_to_end(worker, kill_after)
        yield {"vcore": worker.vcoreid, "pid": worker.pid, "says": "ends after what is in hand"}
    else:
        worker.restart_at = 0.0
    worker.fails = 0
    while worker.starts == before or not of.is_online(worker):
        if worker.starts != before:
            _must_run(of, worker)
        yield None
    yield {"vcore": worker.vcoreid, "pid": worker.pid, "says": "runs anew"}
    return {}


def _must_run(of: Supervisor, worker: Worker) -> None:
    """UpcallError if a new worker has died: then nobody else is replaced."""
    if worker.fails:
        of.others.clear()
        raise UpcallError(
            f"vcore {worker.vcoreid}: its new worker ended at once ({worker.said}); the others were left as they are"
        )


def _end(of: Supervisor, workers: list[Worker]) -> Change:
    """Ends workers that nobody comes after."""
    said = [{"vcore": worker.vcoreid, "pid": worker.pid, "says": "ends after what is in hand"} for worker in workers]
    for worker in workers:  # all at once: none takes more meanwhile
        of.ask_to_end(worker)
    yield from said
    while any(of.workers.get(worker.vcoreid) is worker for worker in workers):
        yield None
    return {}


def scale(of: Supervisor, count: int, keep: bool) -> Change:
    """More vcores, or fewer."""
    before, limit = of.wanted, of.segment.geometry.max_vcores
    if count > limit:
        raise SegmentError(
            f"vcores={count}: the segment of {of.proc.name!r} has room for {limit} (it was made for "
            f"{of.proc.definition.vcores}): stop it, and start it with vcores={count} in its definition"
        )
    if count < before and not keep:
        _may_go(of, count)
    of.want(count)
    yield from _end(of, [worker for v, worker in sorted(of.workers.items()) if v >= count])
    for worker in [of.workers[v] for v in range(before, count)]:
        while not of.is_online(worker) and not worker.fails:
            yield None
        says = "runs" if not worker.fails else f"ended at once ({worker.said}); it is tried again"
        yield {"vcore": worker.vcoreid, "pid": worker.pid, "says": says}
    if count < before and not keep:
        with contextlib.ExitStack() as undo:
            # The number of vcores is lower now; mail that came before stays, so its vcores do.
            undo.callback(of.want, before)
            _may_go(of, count)
            undo.pop_all()
    return {"vcores": count, "before": before}


def _may_go(of: Supervisor, count: int) -> None:
    """SegmentError naming what only vcores from `count` on could handle."""
    name, last = of.proc.name, of.wanted
    waiting = private_mail(of, count)
    if waiting:
        ids = ", ".join(map(str, waiting))
        raise SegmentError(
            f"private mail waits for vcore {ids} of {name!r}: let it be handled first, or leave it there with --keep, "
            "until there are so many vcores again"
        )
    bound = [text for number, text in queues(of.segment).items() if _bound_to(of, number) >= count]
    if bound:
        raise SegmentError(
            f"vcores={count} (now {last}): queue {', '.join(map(repr, bound))} of {name!r} sends to a vcore that would go: "
            "change its definition, or let what it sends wait there with --keep"
        )


def private_mail(of: Supervisor, first: int) -> list[int]:
    """The vcores from `first` on for which private mail waits."""
    boxes = {v: get_vcpd_mbox_priv(of.seg, v) for v in range(first, of.segment.geometry.max_vcores)}
    return [v for v, box in boxes.items() if waiting_in(of.seg, box, 0) or has_bits(of.seg, box)]


def _bound_to(of: Supervisor, number: int) -> int:
    """The vcore that a queue without a mailbox of its own sends to; -1: to any."""
    at = evq_at(of.seg, number)
    flags = of.segment.u32(at + const.EVQ_FLAGS)
    if of.segment.u32(at + const.EVQ_MBOX) or flags & (const.EVENT_SPAM_PUBLIC | const.EVENT_ROUNDROBIN):
        return -1
    return of.segment.u32(at + const.EVQ_VCORE)
