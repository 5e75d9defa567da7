"""The package that dies: built from the sources beside these tests, apart from the one that is tested otherwise.

One number is smaller in it, that of the sources' records: who ends a run reads each of them, and with all of them nine in
ten of its deaths would be in the middle of that walk."""

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
NUMBERS = Path("src/upcall/kern/const.pxd")
USUAL, SMALLER = "    NR_SOURCES = 2048\n", "    NR_SOURCES = 8\n"


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
        tree = _copied(base / "tree")
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build", "--build-base", str(base), "--build-lib", str(base / _tag())],
            cwd=tree, env={**os.environ, "UPCALL_DEATHS": "1"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    assert done.returncode == 0, f"the build failed:\n{done.stdout[-4000:]}"
    return base / _tag()


def _copied(tree: Path) -> Path:
    """The sources, but for the number."""
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tree)
    numbers = (tree / NUMBERS).read_text()
    assert numbers.count(USUAL) == 1
    (tree / NUMBERS).write_text(numbers.replace(USUAL, SMALLER))
    return tree


def _tag() -> str:
    return f"lib-{sys.implementation.cache_tag}"
