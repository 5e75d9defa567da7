"""What an exhibit shows: scenarios, and for each what is known to come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..plan import Scenario, scenario
from ..runner import Job

Layout = Callable[[Scenario], object]


@dataclass(frozen=True)
class Showing:
    """One scenario of an exhibit. Under the models in `broken` it breaks, and what breaks says `says`; under the others of
    `models` it holds: complete, or in every run with at most so many switches as `bounds` has for the model."""

    exhibit: str
    name: str
    lay_out: Layout
    models: tuple[str, ...] = ("sc", "tso", "ra")
    broken: tuple[str, ...] = ()
    says: str = ""
    deaths: int = 0
    stops: int = 0
    bounds: dict[str, int] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """What it is about, in a line."""
        return " ".join((self.lay_out.__doc__ or "").partition("\n\n")[0].split())

    def job(self, model: str, seconds: float) -> Job:
        """Its exploration under a model."""
        breaks = model in self.broken
        return Job(self.name, model, self.deaths, self.stops, self.bounds.get(model), seconds, breaks=breaks)

    def unexpected(self, model: str, broken: str | None, complete: bool) -> str:
        """What is not as known, in words; nothing if all is. `broken`: what was found to break."""
        if model in self.broken:
            if broken is None:
                return "it holds, and was known to break"
            return "" if self.says in broken else f"it breaks, but not as known ({self.says!r})"
        if broken is not None:
            return "it breaks, and was known to hold"
        return "" if complete or model in self.bounds else "it could not be explored completely"


SHOWINGS: dict[str, Showing] = {}


def shown(exhibit: str, **options: Any) -> Callable[[Layout], Layout]:
    """Registers a scenario of an exhibit, with what is known of it (a decorator)."""

    def add(lay_out: Layout) -> Layout:
        made = scenario(lay_out)
        SHOWINGS[lay_out.__name__] = Showing(exhibit, lay_out.__name__, made, **options)
        return made

    return add
