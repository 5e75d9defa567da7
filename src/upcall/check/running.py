"""Many explorations: on several cores, in a time that they share, and how they stand meanwhile.

A run with a budget gives each exploration, when it begins, a share of what is left: what ends early leaves its share to
those that come later. Those that are to be explored completely come first, with WHOLE times the share of the others: most
end early. Those with a bound on switches come last, since they can use whatever is left. What its share has cut short is
explored once more, as long as what is left then gives it GROWTH times as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context
from typing import Any

from .runner import Job, Result, run
from .verdict import Verdict

EVERY_S = 0.25
"""How often it is said how explorations stand."""
LEAST_S = 0.05
"""The least share: something of each is explored, even if the budget is used up."""
WHOLE = 3
GROWTH = 1.5
CELLS = 3


@dataclass(frozen=True)
class Standing:
    """One exploration that runs: its states so far and states each second in the present pass, the bound on switches that
    it is at (None: none), for how many seconds it has run, and its limit."""

    job: Job
    states: int
    speed: float
    bound: int | None
    seconds: float
    limit: float


@dataclass(frozen=True)
class Progress:
    """How a run stands. `left`: an estimate of the seconds that it goes on, from those that have ended and from limits;
    None before any has ended."""

    running: list[Standing]
    done: int
    total: int
    seconds: float
    left: float | None


Told = Callable[[Progress], object]
_CELLS: list[Any] = []
"""In a worker: where its explorations write how they stand."""


def _keep(cells: Any) -> None:
    _CELLS[:] = [cells]


class Teller:
    """Writes down how an exploration stands: called by it now and then, and cheap."""

    def __init__(self, cells: Any, at: int, then: Callable[[], object] | None = None) -> None:
        self.cells, self.at, self.then = cells, at, then
        self.states, self.since, self.said = 0, time.monotonic(), time.monotonic()

    def __call__(self, verdict: Verdict) -> None:
        now = time.monotonic()
        if verdict.states < self.states:
            self.since = now  # a new pass, or the next bound
        self.states = verdict.states
        bound = -1 if verdict.bound is None else verdict.bound
        speed = verdict.states / max(now - self.since, 1e-3)
        self.cells[self.at : self.at + CELLS] = [float(verdict.states), speed, float(bound)]
        if self.then is not None and now - self.said >= EVERY_S:
            self.said = now
            self.then()


def _work(job: Job, at: int) -> Result:
    """One job, in a worker."""
    return run(job, Teller(_CELLS[0], at))


class Run:
    """Explorations that share `seconds` (None: each has its own limit), on so many workers."""

    def __init__(
        self, jobs: Sequence[Job], workers: int, seconds: float | None = None, told: Told | None = None
    ) -> None:
        self.waiting = sorted(jobs, key=lambda job: job.preemptions is not None)
        self.total = len(self.waiting)
        self.workers = max(1, min(workers, self.total))
        self.begun = time.monotonic()
        self.end = None if seconds is None else self.begun + seconds
        self.wanted = {_key(job): job.seconds for job in self.waiting}
        self.short: dict[tuple[str, str], Result] = {}
        """The best so far of those that were cut short by their share, not by their own limit."""
        self.told = told
        self.running: dict[int, tuple[Job, float]] = {}
        """By place in `cells`: what runs, and since when."""
        self.spent: list[float] = []
        self.explored = 0.0
        self.cells = get_context("fork").RawArray("d", CELLS * self.workers)

    def results(self) -> Iterator[Result]:
        """Runs all; each result as it ends, or when there is no time to come further with it."""
        yield from self._finished()
        while again := self._worth_more():
            self.waiting = [replace(job, seconds=self.wanted[_key(job)]) for job in again]
            yield from self._finished()
        yield from self.short.values()

    def _finished(self) -> Iterator[Result]:
        """Runs what waits; yields what was not cut short."""
        for result in self._alone() if self.workers == 1 else self._side_by_side():
            key = _key(result.job)
            before = self.short.pop(key, None)
            best = result
            if before is not None and _reach(before) > _reach(result):
                best = replace(before, job=result.job)
            if result.verdict.cut_short and self.end is not None and result.job.seconds < self.wanted[key]:
                self.short[key] = best
            else:
                yield best

    def _worth_more(self) -> list[Job]:
        """Those that were cut short and would now get enough more time than they had."""
        if not self.short or self.end is None:
            return []
        jobs = [result.job for result in self.short.values()]
        part = (self.end - time.monotonic()) * self.workers / sum(map(_parts, jobs))
        return [job for job in jobs if part * _parts(job) > GROWTH * job.seconds]

    def _side_by_side(self) -> Iterator[Result]:
        """All of them, several at once, in processes of their own."""
        fork = get_context("fork")
        with ProcessPoolExecutor(self.workers, mp_context=fork, initializer=_keep, initargs=(self.cells,)) as pool:
            places: dict[Future[Result], int] = {}
            try:
                while self.waiting or places:
                    for place in range(self.workers):
                        if self.waiting and place not in self.running:
                            places[pool.submit(_work, self._next(place), CELLS * place)] = place
                    ended, _ = wait(places, EVERY_S if self.told else None, FIRST_COMPLETED)
                    for one in ended:
                        result = one.result()
                        self._ended(places.pop(one), result)
                        yield result
                    self._tell()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in active_children():
                    child.kill()  # explorations look at no signal, and take their time
                raise

    def _alone(self) -> Iterator[Result]:
        """All of them in this process, one after the other."""
        while self.waiting:
            result = run(self._next(0), Teller(self.cells, 0, self._tell))
            self._ended(0, result)
            yield result

    def _next(self, place: int) -> Job:
        """Begins the next one, with its share."""
        now = time.monotonic()
        job = self.waiting.pop(0)
        if self.end is not None:
            left = self.end - now
            promised = sum(max(0.0, other.seconds - (now - since)) for other, since in self.running.values())
            parts = sum(map(_parts, self.waiting)) + _parts(job)
            share = (left * self.workers - promised) * _parts(job) / parts - self._around()
            job = replace(job, seconds=max(LEAST_S, min(job.seconds, share, left)))
        self.running[place] = job, now
        self.cells[CELLS * place : CELLS * (place + 1)] = [0.0, 0.0, -1.0]
        return job

    def _ended(self, place: int, result: Result) -> None:
        spent = time.monotonic() - self.running.pop(place)[1]
        self.spent.append(spent)
        self.explored += result.verdict.seconds

    def _around(self) -> float:
        """What each takes beside exploring: laying out, running a sample again, looking for fewer switches."""
        return (sum(self.spent) - self.explored) / len(self.spent) if self.spent else 0.0

    def _tell(self) -> None:
        if self.told is not None:
            self.told(self.progress())

    def progress(self) -> Progress:
        """How it stands."""
        now = time.monotonic()
        standing = []
        for place, (job, since) in sorted(self.running.items()):
            states, speed, bound = self.cells[CELLS * place : CELLS * (place + 1)]
            at = None if bound < 0 else int(bound)
            standing.append(Standing(job, int(states), speed, at, now - since, job.seconds))
        return Progress(
            standing,
            self.total - len(self.waiting) - len(standing),
            self.total,
            now - self.begun,
            self._left(standing, now),
        )

    def _left(self, standing: list[Standing], now: float) -> float | None:
        """Those that wait take as long as those before did; those that run, too, or if they have run longer already, until
        their limit. No longer than the budget."""
        if not self.spent:
            return None if self.end is None else self.end - now
        usual = sum(self.spent) / len(self.spent)
        work = usual * len(self.waiting)
        for each in standing:
            work += usual - each.seconds if each.seconds < usual else max(0.0, each.limit - each.seconds)
        left = max([work / self.workers, *(usual - each.seconds for each in standing)])
        return left if self.end is None else max(0.0, min(left, self.end - now))


def _parts(job: Job) -> int:
    return WHOLE if job.preemptions is None else 1


def _key(job: Job) -> tuple[str, str]:
    return job.scenario, job.model


def _reach(result: Result) -> tuple[bool, int, int]:
    """How far an exploration came: to be compared with another of the same job."""
    verdict = result.verdict
    return not verdict.cut_short, verdict.covered, verdict.states


def run_all(
    jobs: Sequence[Job], workers: int, seconds: float | None = None, told: Told | None = None
) -> Iterator[Result]:
    """All jobs, as they end; on several cores if `workers` says so; in `seconds` that they share, if given. `told` is
    called a few times a second with how they stand."""
    yield from Run(jobs, workers, seconds, told).results()
