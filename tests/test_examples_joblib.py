"""The scikit-learn example, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from pages import session, shape

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "grid_search.py"


def test_a_grid_search_survives_a_worker(lacks: Callable[[str], NoReturn]) -> None:
    for package in ("sklearn", "joblib"):
        if find_spec(package) is None:
            lacks(package)
    ((typed, said),) = session("docs/executor.md", "grid_search.py")
    assert typed == "python examples/grid_search.py"
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=110)
    assert done.stdout.splitlines() == said.splitlines()[1:], done.stderr
    assert shape(done.stderr, digits=1)[0] == shape(said, digits=1)[0]
    assert "Traceback" not in done.stderr
