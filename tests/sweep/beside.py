"""The sweep beside a test run's other tests: asked when the run begins, answered when its own tests, the last ones, wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FULL = os.environ.get("UPCALL_SWEEP") == "full"
HOW = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
EVERY = {"killed": 1, "stopped": 1 if FULL else 5}
TESTS = Path(__file__).resolve().parents[1]


class Sweep:
    """A process of its own (`run`), without a thread in this one: what is tested here forks."""

    def __init__(self, scenes: Iterable[tuple[str, str]]) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sweep.run"], cwd=TESTS, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, process_group=0,
        )  # fmt: skip
        assert self.process.stdin is not None
        orders = [(scene, how, HOW[how], EVERY[how]) for scene, how in scenes]
        with self.process.stdin as stdin:
            json.dump(orders, stdin)
        self.built: Path | None = None
        self.answers: dict[tuple[str, str], dict[str, Any]] = {}

    def library(self) -> Path:
        """Where the package that dies is, once it is built."""
        if self.built is None:
            self.built = Path(self._next()["library"])
        return self.built

    def answer(self, scene: str, how: str) -> dict[str, Any]:
        """What a server has said about a scene, once it has."""
        self.library()
        while (scene, how) not in self.answers:
            found = self._next()
            self.answers[found["scene"], found["how"]] = found
        return self.answers[scene, how]

    def _next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise AssertionError(f"the sweep ended with {self.process.wait()}:\n{self.log.read()[-4000:]}")
        return dict(json.loads(line))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()
