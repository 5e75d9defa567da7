"""The exhaustive death sweep: every operation, killed or stopped before each of its accesses in turn (see `sweep`).

`UPCALL_SWEEP=full` also stops before each access; without it, each is a death, and every fifth a stop.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn

import pytest

from sweep import build
from sweep.client import Servers
from sweep.scenes import SCENES
from upcall import _life

FULL = os.environ.get("UPCALL_SWEEP") == "full"
HOW = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
EVERY = {"killed": 1, "stopped": 1 if FULL else 5}
MARK = b"UPCALL_DEATHS"
"""In every module of the build that dies, and in no other."""


@pytest.fixture(scope="session")
def library() -> Path | None:
    """Where the package that dies is; None if this machine cannot build it."""
    return None if build.missing() else build.build()


@pytest.fixture(scope="session")
def answers(library: Path | None, request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], Future[Any]]]:
    """What the servers will say about each scene of this run. All are asked at once: the servers share them out."""
    asked: dict[tuple[str, str], Future[Any]] = {}
    if library is None:
        yield asked
        return
    servers = Servers(library)
    for item in request.session.items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if {"scene", "how"} <= set(params):
            scene, how = params["scene"], params["how"]
            asked[scene, how] = servers.submit(scene, HOW[how], EVERY[how])
    yield asked
    servers.close()


@pytest.mark.parametrize("scene", [scene.name for scene in SCENES])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.timeout(600)  # the first one waits for the build
def test_sweep(
    answers: dict[tuple[str, str], Future[Any]], scene: str, how: str, lacks: Callable[[str], NoReturn]
) -> None:
    if what := build.missing():
        lacks(what)
    answer = answers[scene, how].result()
    assert not answer["failures"], "\n".join(answer["failures"])
    assert answer["accesses"] >= 5, f"a sweep of {answer['accesses']} accesses shows nothing: {answer}"
    assert answer["played"] > answer["accesses"], "it never came to its end"


def test_every_scene_has_a_name_of_its_own() -> None:
    names = [scene.name for scene in SCENES]
    assert len(names) == len(set(names))


def test_the_shipped_build_cannot_be_told_to_die(library: Path | None, lacks: Callable[[str], NoReturn]) -> None:
    shipped = [
        Path(importlib.import_module("upcall." + stem.replace("/", ".")).__file__ or "")
        for stem in _life.compiled_modules()
    ]
    assert shipped
    assert not [file for file in shipped if MARK in file.read_bytes()]
    if library is None:
        lacks(build.missing() or "")
    told = {file.name.partition(".")[0] for file in library.rglob("*.so") if MARK in file.read_bytes()}
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
