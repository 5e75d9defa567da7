"""`upcall.Executor`: the rows of executors, as the peers do them (`peers/executors`)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from ..peers import executors
from ..sample import Measurement
from .running import NAME


def rows() -> Mapping[str, Measurement]:
    """The rows of this file."""
    return executors.without_numpy(executors.rows(NAME, _executor, tasks=100_000, items=1_000_000))


def _executor(workers: int) -> AbstractContextManager[Any]:
    from ...executor import Executor

    return Executor(workers, mp_context="fork")
