"""Running one scenario: as far as its limits let it, and a violation brought to its fewest switches."""

from __future__ import annotations

import importlib.util
import itertools
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import _life
from ..errors import UpcallError
from .explore import Explorer
from .plan import SCENARIOS, Plan, Scenario
from .program import NotDeterministic
from .story import Story, tell
from .verdict import Limits, Move, Verdict

MINIMISE_S = 20.0
"""How long at most to look for the same violation with fewer switches; no longer than the exploration's own limit."""
RECHECK_S = 4.0
"""How long at most to run a sample of what was explored again; no longer than a tenth of the exploration's limit."""


@dataclass(frozen=True)
class Job:
    """One exploration: a scenario (in `file`, or of upcall's own), a model, so many deaths and stops, limits. `breaks`: it
    is known to break a promise, or not to (None: it must not). `runs`: so many random ones instead, from a seed, for
    faults of so many orderings. `deepen`: if three quarters of its seconds are not enough to see everything, it is
    explored with at most 0, 1, 2 ... switches in the rest."""

    scenario: str
    model: str = "sc"
    deaths: int = 0
    stops: int = 0
    preemptions: int | None = None
    seconds: float = 60.0
    file: str | None = None
    breaks: bool | None = None
    runs: int = 0
    seed: int = 0
    depth: int = 3
    deepen: bool = False


@dataclass(frozen=True)
class Result:
    """What came of a job; with a violation, its story and the moves that lead there."""

    job: Job
    verdict: Verdict
    story: Story | None = None
    moves: tuple[Move, ...] = ()
    switches: int | None = None
    shared: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        """What was to be found was found: a violation where one is known, else none. Random runs may miss it."""
        return self.verdict.ok != bool(self.job.breaks) or bool(self.verdict.ok and self.job.runs)

    @property
    def said(self) -> str:
        """The verdict in a few words."""
        if self.verdict.ok:
            covered = "complete" if self.verdict.complete else self.verdict.why
            return f"NOT BROKEN, {covered}" if self.job.breaks and not self.job.runs else covered
        return "broken, as it must be" if self.job.breaks else "BROKEN"


def load(file: str) -> list[str]:
    """Imports a file of scenarios; the names of those it registers. UpcallError if it has none."""
    path = Path(file).resolve()
    if not path.is_file():
        raise UpcallError(f"{file}: no such file; give a Python file with functions marked @scenario")
    before = dict(SCENARIOS)
    spec = importlib.util.spec_from_file_location(f"upcall_scenarios_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules[spec.name] = module  # as for any import: dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except UpcallError:
        raise
    except Exception as error:
        at = _line_in(error, str(path))
        raise UpcallError(f"{file}{at} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    found = [name for name, made in SCENARIOS.items() if before.get(name) is not made]
    if not found:
        raise UpcallError(f"{file} registers no scenario: mark functions with @upcall.check.scenario")
    return found


def _line_in(error: Exception, path: str) -> str:
    """Which line of a file an error came from, as `:line`."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f":{lines[-1]}" if lines else ""


def own_jobs(models: Sequence[str], seconds: float) -> list[Job]:
    """The default set: upcall's own scenarios, under these models; none given: under those that each names."""
    from . import scenarios

    return scenarios.jobs(models, seconds)


def _check_shared(plan: Plan) -> None:
    changed = plan.shared_change()
    if changed:
        raise UpcallError(changed)


def find(job: Job) -> None:
    """Has a job's scenario registered."""
    if job.scenario not in SCENARIOS:
        if job.file is not None:
            load(job.file)
        else:
            from . import classics, exhibits, scenarios  # noqa: F401


def known_jobs(models: Sequence[str], seconds: float) -> dict[str, list[Job]]:
    """Programs whose verdicts are known, by the name of each and by that of its group."""
    from . import classics

    return classics.known_jobs(models, seconds)


def about() -> list[tuple[str, str, str]]:
    """Of every scenario that upcall brings: its group, its name, and what it is about; of the protocol's own also which
    promises of the contract it checks, and what of it is explored."""
    from .classics import KNOWN
    from .scenarios import CASES

    own = [("protocol", case.name, f"{case.about} ({case.covered})") for case in CASES.values()]
    return own + [(each.group, each.name, each.about) for each in KNOWN.values()]


def run(job: Job, told: Callable[[Verdict], object] | None = None) -> Result:
    """Explores a job's scenario."""
    find(job)
    return explore(job, SCENARIOS[job.scenario], told)


def explore(job: Job, lay_out: Callable[[Scenario], object], told: Callable[[Verdict], object] | None = None) -> Result:
    """Explores; a violation is looked for again with as few switches as it needs. UpcallError for what is no scenario: no
    actors, an actor that does not do the same each time, a list that actors share and change."""
    plan = Plan(job.scenario, lay_out)
    try:
        try:
            explorer, verdict = _explored(plan, job, told)
            for program in plan.programs:
                program.recheck(min(RECHECK_S, job.seconds / 10) / len(plan.programs))
        except NotDeterministic:
            _check_shared(plan)
            raise
        _check_shared(plan)
        if verdict.violation is None:
            return Result(job, verdict)
        found, moves, switches = explorer, verdict.violation.moves, None
        end = time.monotonic() + min(MINIMISE_S, job.seconds)
        for bound in range(8):
            left = end - time.monotonic()
            if left <= 0:
                break
            fewer = _explorer(plan, job, bound, left)
            again = fewer.run().violation
            if again is not None:
                found, moves, switches = fewer, again.moves, bound
                break
        shared = tuple(found.shared_words())
        return Result(job, verdict, tell(found, moves), tuple(moves), switches, shared)
    finally:
        plan.close()


def _explored(plan: Plan, job: Job, told: Callable[[Verdict], object] | None) -> tuple[Explorer, Verdict]:
    """An exploration and its verdict. With a bound on switches, every lower one first: what is learnt of the actors serves
    the next, and when time runs out it is known which one was explored to its end."""
    if job.runs:
        explorer = _explorer(plan, job, None, job.seconds)
        return explorer, explorer.wander(job.runs, job.seed, job.depth)
    start, shared, covered = time.monotonic(), list[int](), -1
    if job.preemptions is None:
        explorer = _explorer(plan, job, None, job.seconds * 0.75 if job.deepen else job.seconds)
        explorer.tell = told
        verdict = explorer.run()
        if not job.deepen or verdict.complete or verdict.violation is not None:
            return explorer, verdict
        shared = explorer.shared_words()
    for bound in itertools.count() if job.preemptions is None else range(job.preemptions + 1):
        explorer = _explorer(plan, job, bound, max(0.0, job.seconds - (time.monotonic() - start)))
        explorer.tell = told
        explorer.share(shared)
        verdict = explorer.run()
        shared = explorer.shared_words()
        if verdict.violation is not None:
            break
        if verdict.why.startswith("stopped"):
            limit = verdict.why if "states" in verdict.why else f"stopped after {job.seconds:.3g} s"
            verdict.covered = covered
            verdict.why = (
                f"every run with at most {covered} preemption(s); {limit} at the next"
                if covered >= 0
                else f"{limit}, before every run without a preemption was seen"
            )
            break
        verdict.covered = covered = bound
    verdict.seconds = time.monotonic() - start
    return explorer, verdict


def all_jobs(seconds: float) -> list[Job]:
    """Everything: each of upcall's own scenarios under every model, with two deaths where it has any, and all programs
    whose verdicts are known."""
    from . import classics, scenarios

    models = classics.MODELS
    own = [replace(job, deaths=2) if job.deaths else job for job in scenarios.jobs(models, seconds)]
    known = classics.known_jobs(models, seconds)
    return own + known["litmus"] + known["classics"]


def _explorer(plan: Plan, job: Job, preemptions: int | None, seconds: float) -> Explorer:
    limits = Limits(seconds=seconds, preemptions=preemptions)
    return Explorer(plan, job.model, job.deaths, job.stops, limits)


def save(result: Result, path: Path) -> None:
    """Writes a violation to a file that `replay` reads."""
    kept = {**asdict(result.job), "moves": result.moves, "shared": result.shared, "made_from": made_from()}
    path.write_text(json.dumps(kept) + "\n")


def replay(path: Path) -> tuple[Story, list[str]]:
    """The story of a saved violation, and what has changed since it was saved. UpcallError for a file that is none."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
        moves = [(int(who), int(kind), int(choice)) for who, kind, choice in kept.pop("moves")]
        shared = [int(word) for word in kept.pop("shared")]
        before = dict(kept.pop("made_from"))
        job = Job(**kept)
    except (ValueError, KeyError, TypeError) as error:
        raise UpcallError(f"{path} is no saved violation of `upcall check`: {error}") from error
    find(job)
    if job.scenario not in SCENARIOS:
        raise UpcallError(f"{path}: there is no scenario {job.scenario!r} (any more)")
    changed = [
        f"{what}: {before.get(what)} then, {now} now" for what, now in made_from().items() if before.get(what) != now
    ]
    plan = Plan(job.scenario, SCENARIOS[job.scenario])
    try:
        explorer = _explorer(plan, job, None, MINIMISE_S)
        explorer.share(shared)
        return tell(explorer, moves), changed
    finally:
        plan.close()


def made_from() -> dict[str, str]:
    """What a saved violation depends on."""
    return {"sources": _life.source_hash(_life.ROOT), "python": platform.python_version()}
