"""The exhaustive death sweep: every operation, killed or stopped before each of its accesses in turn (see `sweep`).

`UPCALL_SWEEP=full` also stops before each access; without it, each is a death, and every fifth a stop.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from sweep import build
from sweep.beside import HOW, Sweep
from sweep.scenes import SCENES
from upcall import _life

MARK = b"UPCALL_DEATHS"
"""In every module of the build that dies, and in no other."""


@pytest.mark.parametrize("scene", [scene.name for scene in SCENES])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.timeout(600)  # the first ones wait for the build, and for processors
def test_sweep(sweep: Sweep, scene: str, how: str, lacks: Callable[[str], NoReturn]) -> None:
    if what := build.missing():
        lacks(what)
    answer = sweep.answer(scene, how)
    assert not answer["failures"], "\n".join(answer["failures"])
    assert answer["accesses"] >= 5, f"a sweep of {answer['accesses']} accesses shows nothing: {answer}"
    assert answer["played"] > answer["accesses"], "it never came to its end"


def test_every_scene_has_a_name_of_its_own() -> None:
    names = [scene.name for scene in SCENES]
    assert len(names) == len(set(names))


def test_the_shipped_build_cannot_be_told_to_die(sweep: Sweep, lacks: Callable[[str], NoReturn]) -> None:
    shipped = [
        Path(importlib.import_module("upcall." + stem.replace("/", ".")).__file__ or "")
        for stem in _life.compiled_modules()
    ]
    assert shipped
    assert not [file for file in shipped if MARK in file.read_bytes()]
    if what := build.missing():
        lacks(what)
    told = {file.name.partition(".")[0] for file in sweep.library().rglob("*.so") if MARK in file.read_bytes()}
    # The checker's modules, and `built`, touch no shared memory.
    doors = {Path(stem).name for stem in _life.compiled_modules() if not stem.startswith("check/")} - {"built"}
    assert told == doors


def test_the_build_that_dies_never_replaces_the_other() -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=build.ROOT, capture_output=True, text=True,
        env={**os.environ, "UPCALL_DEATHS": "1"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "--build-base" in done.stderr
