"""upcall's own scenarios: the protocol's paths, each with the models, deaths and stops that it is explored under."""

from __future__ import annotations

from collections.abc import Sequence

from ..runner import Job
from . import (
    attaching,
    duties,
    dying,
    hosts,
    lagging,
    leaving,
    letters,
    locks,
    pages,
    pairs,
    polling,
    preempting,
    recycling,
    sending,
    sources,
    stopping,
    taking,
    unlinking,
)
from .cases import CASES, Case

__all__ = [
    "CASES",
    "Case",
    "attaching",
    "duties",
    "dying",
    "hosts",
    "jobs",
    "lagging",
    "leaving",
    "letters",
    "locks",
    "pages",
    "pairs",
    "polling",
    "preempting",
    "recycling",
    "sending",
    "sources",
    "stopping",
    "taking",
    "unlinking",
]


def jobs(models: Sequence[str], seconds: float) -> list[Job]:
    """The default set, under these models; none given: under `sc`, `tso` and those that each scenario names."""
    return [
        Job(name, model, case.deaths, case.stops, case.bound(model), seconds)
        for name, case in CASES.items()
        for model in models or dict.fromkeys(("sc", "tso", *case.models))
    ]
