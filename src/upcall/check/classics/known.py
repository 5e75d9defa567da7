"""Programs whose verdicts are known, and what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..plan import Scenario, scenario
from ..runner import Job

MODELS = ("sc", "tso", "ra")


@dataclass(frozen=True)
class Known:
    """A program, and the models under which it is broken: under the others it holds in every run."""

    name: str
    group: str
    lay_out: Callable[[Scenario], object]
    broken: tuple[str, ...]
    deaths: int = 0

    @property
    def about(self) -> str:
        """What it is about, in a line."""
        return (self.lay_out.__doc__ or "").partition("\n")[0]


KNOWN: dict[str, Known] = {}


def known(
    lay_out: Callable[..., object],
    name: str,
    group: str,
    broken: tuple[str, ...] = (),
    deaths: int = 0,
    **given: object,
) -> None:
    """Registers `lay_out` with these arguments under a name."""
    made = partial(lay_out, **given)
    made.__doc__ = lay_out.__doc__
    made.__name__ = name  # type: ignore[attr-defined]
    KNOWN[name] = Known(name, group, scenario(made), broken, deaths)


def known_jobs(models: Sequence[str], seconds: float) -> dict[str, list[Job]]:
    """The explorations of each program and of each group, with what is known of them; no models given: all."""
    found: dict[str, list[Job]] = {}
    for each in KNOWN.values():
        jobs = [
            Job(each.name, model, each.deaths, seconds=seconds, breaks=model in each.broken)
            for model in models or MODELS
        ]
        found[each.name] = jobs
        found.setdefault(each.group, []).extend(jobs)
    return found
