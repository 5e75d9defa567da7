"""The pytest plugin: a scenario is a test.

    from upcall.check import scenario

    @scenario
    def flags(s): ...                       # is collected, one test for each memory model: flags[sc], flags[tso]

    @pytest.mark.upcall(models=["tso"], deaths=1)
    @scenario
    def lock(s): ...                        # under these models, with so many deaths

    def test_fence_is_needed(upcall_check):
        upcall_check(flags, models=["tso"], broken="neither saw the other")

A test fails with the story of what breaks, and if it could not be explored completely.

This module is not in the package `upcall` because pytest imports it in every run of an environment that has upcall: here it
costs nothing, and nothing of upcall is imported before a test module does it, or uses the fixture.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from upcall.check import Scenario
    from upcall.check.runner import Result
    from upcall.check.story import Story

Layout = Callable[["Scenario"], object]
MODELS = ("sc", "tso")
"""Explored unless something else is asked for."""


class Options(NamedTuple):
    """What a scenario is explored with; the arguments of the mark `upcall` and of the fixture `upcall_check`.

    `models`: memory models, of "sc", "tso", "ra"; `deaths`, `stops`: how many actors may be killed, or stop for ever, at any
    access; `preemptions`: only runs with at most so many switches away from an actor that could go on (None: all, and what
    cannot be explored completely fails); `seconds`: limit for each model; `broken`: it must break, and say this.
    """

    models: Sequence[str] = ()
    deaths: int = 0
    stops: int = 0
    preemptions: int | None = None
    seconds: float | None = None
    broken: str | None = None


class Failed(Exception):
    """A scenario that did not come out as it must; the message is for people."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("upcall", "scenarios of upcall.check")
    group.addoption("--upcall-model", action="append", metavar="MODEL", help="memory model: sc, tso or ra (repeatable)")
    group.addoption("--upcall-html", metavar="DIR", help="write stories of failed scenarios into this folder, as pages")
    parser.addini("upcall_models", f"memory models for scenarios (default: {' '.join(MODELS)})", "args", list(MODELS))
    parser.addini("upcall_seconds", "limit for each exploration of a scenario, in seconds (default: 60)", default="60")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "upcall(models, deaths, stops, preemptions, seconds, broken): how a scenario is explored (upcall.check)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Item] | None:
    """A function marked @scenario in a test module, whatever its name; not those that the module only imports."""
    if not getattr(obj, "upcall_scenario", False) or getattr(obj, "__module__", None) != collector.obj.__name__:
        return None
    marks = [mark for mark in getattr(obj, "pytestmark", []) if mark.name == "upcall"]
    try:
        options = Options(**marks[0].kwargs) if marks and not marks[0].args else Options()
        if marks and marks[0].args:
            raise TypeError("it takes only arguments by name")
    except TypeError as error:
        raise collector.CollectError(
            f"the mark upcall of scenario {name}: {error}; its arguments are {', '.join(Options._fields)}"
        ) from None
    return [
        ScenarioItem.from_parent(collector, name=f"{name}[{model}]", lay_out=obj, options=options, model=model)
        for model in _models(collector.config, options)
    ]


class ScenarioItem(pytest.Item):
    """One scenario under one model, as a test."""

    def __init__(self, *, lay_out: Any, options: Options, model: str, **given: Any) -> None:
        super().__init__(**given)
        self.lay_out, self.options, self.model = lay_out, options, model
        self.own_markers.extend(getattr(lay_out, "pytestmark", []))
        self.keywords.update((mark.name, mark) for mark in self.own_markers)

    def runtest(self) -> None:
        result = _explored(self.config, self.lay_out, self.options, self.model)
        self.user_properties.append(("upcall_states", result.verdict.states))
        wrong = _judged(self.config, self.options, result)
        if wrong:
            raise Failed(wrong)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, Failed) or type(excinfo.value).__name__ == "UpcallError":
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        code = getattr(self.lay_out, "__code__", None)
        return self.path, code.co_firstlineno - 1 if code is not None else None, self.name


class Checker:
    """What the fixture `upcall_check` gives."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def __call__(
        self, lay_out: Layout, *, models: Iterable[str] | None = None, deaths: int = 0, stops: int = 0,
        preemptions: int | None = None, seconds: float | None = None, broken: str | None = None,
    ) -> list[Result]:  # fmt: skip
        """Explores a scenario (decorated with @scenario or not); the results, one for each model. Fails with the story if
        it breaks, or if it does not where it must; see `Options` for the arguments."""
        __tracebackhide__ = True
        options = Options(tuple(models or ()), deaths, stops, preemptions, seconds, broken)
        results = []
        for model in _models(self.config, options):
            result = _explored(self.config, lay_out, options, model)
            wrong = _judged(self.config, options, result)
            if wrong:
                pytest.fail(wrong, pytrace=False)
            results.append(result)
        return results


@pytest.fixture
def upcall_check(pytestconfig: pytest.Config) -> Checker:
    """Explores scenarios in a test: `upcall_check(scenario, models=["tso"], deaths=1)`."""
    return Checker(pytestconfig)


def _models(config: pytest.Config, options: Options) -> list[str]:
    """Those of the command line; else of the scenario; else of the configuration."""
    found = list(config.getoption("--upcall-model") or options.models or config.getini("upcall_models"))
    unknown = [model for model in found if model not in ("sc", "tso", "ra")]
    if unknown:
        raise pytest.UsageError(f"no memory model {unknown[0]!r}: there are sc, tso and ra")
    return found


def _explored(config: pytest.Config, lay_out: Layout, options: Options, model: str) -> Result:
    """The exploration."""
    try:
        from upcall.check.runner import Job, explore
    except ImportError as error:
        raise pytest.UsageError(f"scenarios need greenlet and Cython ({error}): pip install 'upcall[check]'") from None
    seconds = float(options.seconds if options.seconds is not None else config.getini("upcall_seconds"))
    name = getattr(lay_out, "__name__", "scenario")
    job = Job(
        name, model, options.deaths, options.stops, options.preemptions, seconds, breaks=options.broken is not None
    )
    return explore(job, lay_out)


def _judged(config: pytest.Config, options: Options, result: Result) -> str:
    """What is not as it must be, with the story of what breaks; "" if all is."""
    verdict, job = result.verdict, result.job
    if result.story is not None:
        if options.broken is not None and options.broken in result.story.broken:
            return ""
        said = "\n".join(result.story.lines(width=_width()))
        if options.broken is not None:
            said += f"\n\nit was to break with {options.broken!r}"
        return said + _written(config, result.story)
    if options.broken is not None:
        return f"{job.scenario}, {job.model}: was to break with {options.broken!r}; {result.said}"
    if not verdict.complete and options.preemptions is None:
        return (
            f"{job.scenario}, {job.model}: {verdict.why}, nothing found so far ({verdict.states} states): make the scenario "
            f"smaller, give it more seconds (ini upcall_seconds), or ask for so many preemptions at most"
        )
    return ""


def _written(config: pytest.Config, story: Story) -> str:
    """Writes a story's page if pages are asked for; where it is."""
    folder = config.getoption("--upcall-html")
    if not folder:
        return ""
    name = re.sub(r"[^\w-]", "_", story.scenario)
    page = Path(folder) / f"{name}-{story.model}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(story.page(), encoding="utf-8")
    return f"\n\nas a page: {page}"


def _width() -> int:
    """How wide a story may be."""
    return min(shutil.get_terminal_size().columns, 140)


__all__ = ["Checker", "Options", "upcall_check"]
