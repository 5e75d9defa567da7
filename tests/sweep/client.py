"""Servers, one per processor, and the scenes that they are given."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from sweep.page import Page

TESTS = Path(__file__).resolve().parents[1]


class Server:
    """One server process, in a process group of its own, with segments in a folder of its own."""

    def __init__(self, library: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="upcall-sweep-", dir="/dev/shm"))
        self.page = Page(self.folder / "page")
        self.log = (self.folder / "log").open("w+")
        environment = {
            **os.environ,
            "UPCALL_DIR": str(self.folder / "segments"),
            "UPCALL_DEATHS_PAGE": str(self.folder / "page"),
            "PYTHONPATH": os.pathsep.join([str(library), str(TESTS)]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sweep.server", str(self.folder / "page")], cwd="/", env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, process_group=0,
        )  # fmt: skip

    def play(self, scene: str, how: int, every: int) -> dict[str, Any]:
        """What the server says about a scene. RuntimeError, with the place where it ended, if it has died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"scene": scene, "signal": how, "every": every}) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.log.seek(0)
            raise RuntimeError(
                f"the others wait, or fail, in {self.page.place()}, after {self.page.step_name} "
                f"(exit code {self.process.wait()}):\n{self.log.read()[-4000:]}"
            )
        return dict(json.loads(answer))

    def kill(self) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        self.process.communicate()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Servers:
    """As many as there are processors; each plays one scene at a time."""

    def __init__(self, library: Path) -> None:
        self.library = library
        count = min(4, os.cpu_count() or 1)
        self.pool = ThreadPoolExecutor(count)
        self.servers = [Server(library) for _ in range(count)]
        self.idle: SimpleQueue[int] = SimpleQueue()
        for i in range(count):
            self.idle.put(i)
        self.closed = False

    def submit(self, scene: str, how: int, every: int) -> Future[dict[str, Any]]:
        return self.pool.submit(self._play, scene, how, every)

    def _play(self, scene: str, how: int, every: int) -> dict[str, Any]:
        i = self.idle.get()
        try:
            return self.servers[i].play(scene, how, every)
        except RuntimeError:
            self.servers[i].close()
            if not self.closed:
                self.servers[i] = Server(self.library)
            raise
        finally:
            self.idle.put(i)

    def close(self) -> None:
        """Ends them, in whatever scene they are."""
        self.closed = True
        for server in self.servers:
            server.kill()
        self.pool.shutdown(cancel_futures=True)
        for server in self.servers:
            server.close()
