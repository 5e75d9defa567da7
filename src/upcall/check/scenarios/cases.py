"""What each scenario of upcall's own protocol is run with, and which promises of the contract it checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..plan import Scenario, scenario


@dataclass(frozen=True)
class Case:
    """One scenario: `lay_out` makes it; `preemptions`: it is not explored completely, but in every run with at most so many
    switches away from an actor that could go on, and one fewer under `tso`, whose buffers multiply the runs. `promises`: of
    the contract. `models`: those under which it must hold in a test, too. With deaths that is `sc` alone, unless a case says
    otherwise: a dead actor's buffered stores reach memory in a machine before anybody can tell that it is dead."""

    name: str
    lay_out: Callable[[Scenario], object]
    promises: tuple[str, ...]
    models: tuple[str, ...] = ("sc", "tso")
    deaths: int = 0
    stops: int = 0
    preemptions: int | None = None

    def bound(self, model: str) -> int | None:
        """The bound on switches under a model; None: complete."""
        if self.preemptions is None or model == "sc":
            return self.preemptions
        return max(0, self.preemptions - 1)

    @property
    def about(self) -> str:
        """What it is about, in a line."""
        return (self.lay_out.__doc__ or "").partition("\n")[0]

    @property
    def covered(self) -> str:
        """What of it is explored."""
        unwell = [f"{n} {what}" for n, what in ((self.deaths, "death(s)"), (self.stops, "stop(s)")) if n]
        ways = [
            f"{model}: {'every run' if self.bound(model) is None else f'at most {self.bound(model)} switches'}"
            for model in self.models
        ]
        return "; ".join([", ".join(self.promises), *unwell, *ways])


CASES: dict[str, Case] = {}


def case(*promises: str, **options: Any) -> Callable[[Callable[[Scenario], object]], Callable[[Scenario], object]]:
    """Registers a scenario with what it is run with (a decorator)."""

    def add(lay_out: Callable[[Scenario], object]) -> Callable[[Scenario], object]:
        made = scenario(lay_out)
        CASES[lay_out.__name__] = Case(lay_out.__name__, made, promises, **_with_models(options))
        return made

    return add


def variants(
    lay_out: Callable[..., object], promises: tuple[str, ...], arguments: dict[str, dict[str, Any]], **options: Any
) -> None:
    """Registers one scenario for each set of arguments, as `name of the function_name of the set`."""
    for name, given in arguments.items():
        made = partial(lay_out, **given)
        made.__doc__ = lay_out.__doc__
        whole = f"{lay_out.__name__}_{name}"
        made.__name__ = whole  # type: ignore[attr-defined]
        CASES[whole] = Case(whole, scenario(made), promises, **_with_models(options))


def _with_models(options: dict[str, Any]) -> dict[str, Any]:
    return {"models": ("sc",), **options} if options.get("deaths") else options
