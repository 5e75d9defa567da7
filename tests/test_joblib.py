"""joblib's backend, as scikit-learn uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from upcall.executor.pool import call_text


@pytest.fixture
def joblib(lacks: Callable[[str], NoReturn]) -> Iterator[Any]:
    try:
        import joblib
    except ImportError:
        lacks("joblib")
    from upcall import joblib as backend

    with joblib.parallel_config(backend="upcall", n_jobs=2):
        yield joblib
    for executor in list(backend._executors.values()):
        executor.shutdown()
    backend._executors.clear()


def fails_at_five(i: int) -> int:
    if i == 5:
        raise LookupError("five")
    return i


def dies_once(path: str) -> str:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return path
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_parallel(joblib: Any, lacks: Callable[[str], NoReturn], tmp_path: Path) -> None:
    from joblib import Parallel, delayed

    assert Parallel()(delayed(abs)(-i) for i in range(3000)) == list(range(3000))
    assert list(Parallel(return_as="generator")(delayed(abs)(-i) for i in range(5))) == list(range(5))
    assert Parallel()(delayed(lambda x: x + 1)(i) for i in range(3)) == [1, 2, 3]
    with pytest.raises(LookupError, match="five"):
        Parallel()(delayed(fails_at_five)(i) for i in range(100))
    assert Parallel()(delayed(os.getenv)("OMP_NUM_THREADS") for _ in range(2)) == [str(max(os.cpu_count() // 2, 1))] * 2
    with joblib.parallel_config(backend="upcall", n_jobs=2, on_death="retry"):
        assert Parallel()(delayed(dies_once)(str(tmp_path / str(i))) for i in range(2)) == [
            str(tmp_path / "0"),
            str(tmp_path / "1"),
        ]


def test_a_batch_that_kills_is_named_by_its_calls(joblib: Any) -> None:
    """As `<joblib.parallel.BatchedCalls ...>()` it told nobody which fit of a grid search it was."""
    calls = [(abs, (1,), {}), (abs, (2,), {}), (abs, (3,), {})]
    texts = [call_text((joblib.parallel.BatchedCalls(calls[:n], (None, 1)), (), {})) for n in (1, 3)]
    assert texts == ["abs(1)", "abs(1) or 2 more of its batch"]


def test_a_program_without_a_guard(lacks: Callable[[str], NoReturn], tmp_path: Path) -> None:
    """Workers do not import the main module: what it defines comes by value, as with loky."""
    try:
        import joblib  # noqa: F401
    except ImportError:
        lacks("joblib")
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import joblib, upcall.joblib

            def square(x):
                return x * x

            with joblib.parallel_config(backend="upcall", n_jobs=2):
                print(sum(joblib.Parallel()(joblib.delayed(square)(i) for i in range(10))))
            """
        )
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("285\n", "")
