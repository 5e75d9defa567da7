"""The package that dies: built from the sources beside these tests, apart from the one that is tested otherwise."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def missing() -> str | None:
    """What this machine lacks to build it; None if nothing."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"a C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers"
    return next((name for name in ("Cython", "setuptools") if importlib.util.find_spec(name) is None), None)


def build() -> Path:
    """Builds it, as far as its sources have changed since the last time; returns the folder to import it from."""
    base = ROOT / "build" / "deaths"
    base.mkdir(parents=True, exist_ok=True)
    with (base / f"lock-{sys.version_info.major}.{sys.version_info.minor}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build", "--build-base", str(base), "--build-lib", str(base / _tag())],
            cwd=ROOT, env={**os.environ, "UPCALL_DEATHS": "1"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    assert done.returncode == 0, f"the build failed:\n{done.stdout[-4000:]}"
    return base / _tag()


def _tag() -> str:
    return f"lib-{sys.implementation.cache_tag}"
