"""upcall's own scenarios: the protocol's paths, each with the models, deaths and stops that it is explored under."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..plan import Scenario, scenario
from ..runner import Job

MODULES = ("sending",)
"""The modules of this package that register scenarios."""


@dataclass(frozen=True)
class Own:
    """How one of upcall's own scenarios is explored. `promises`: of docs/contract.md."""

    promises: str
    models: tuple[str, ...] = ("sc", "tso")
    deaths: int = 0
    stops: int = 0
    preemptions: int | None = None


OWN: dict[str, Own] = {}


def own(how: Own) -> Callable[[Callable[[Scenario], object]], Callable[[Scenario], object]]:
    """Registers one of upcall's own scenarios (a decorator)."""

    def register(lay_out: Callable[[Scenario], object]) -> Callable[[Scenario], object]:
        OWN[lay_out.__name__] = how
        return scenario(lay_out)

    return register


def jobs(models: Sequence[str], seconds: float) -> list[Job]:
    """The default set, under those of these models that each scenario names."""
    for name in MODULES:
        importlib.import_module(f"{__name__}.{name}")
    return [
        Job(name, model, how.deaths, how.stops, how.preemptions, seconds)
        for name, how in OWN.items()
        for model in how.models
        if model in models
    ]
