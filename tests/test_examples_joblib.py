"""The scikit-learn example, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "grid_search.py"


def test_a_grid_search_survives_a_worker(lacks: Callable[[str], NoReturn]) -> None:
    for package in ("sklearn", "joblib"):
        if find_spec(package) is None:
            lacks(package)
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=110)
    assert done.stdout.splitlines() == [
        "4 candidates, 3 folds each; a worker was killed: yes",
        "best: {'C': 0.01}, accuracy 0.933",
    ], done.stderr
    assert "signal 9 (SIGKILL)" in done.stderr
    assert "Traceback" not in done.stderr
