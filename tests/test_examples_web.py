"""The web service among the examples, run as a user runs it, under load from a real client."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from pages import block, session, shape, shell
from procs import LONG_S, until

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "web_service.py"
UPCALL = [sys.executable, "-m", "upcall.cli"]
CLIENTS = 50
PRIMES = [p for p in range(200_001, 201_000, 2) if all(p % d for d in range(3, 450, 2))]


def workers(server: int) -> tuple[dict[int, int], int]:
    """The living workers of the server's executor, vcore to pid; and how many tasks were in the hands of dead ones."""
    listed = subprocess.run([*UPCALL, "ps", "--json"], check=True, capture_output=True, text=True, timeout=LONG_S)
    (pool,) = (
        process
        for process in json.loads(listed.stdout)
        if process["name"].startswith(f"executor-{server}-") and not process["name"].endswith(".answers")
    )
    vcores: list[dict[str, Any]] = pool["vcores"]
    return {v["id"]: v["pid"] for v in vcores if v["alive"] and v["pid"]}, sum(v["redelivered"] for v in vcores)


class Load:
    """Clients that ask for one thing after the other, each with its own right answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pairs = itertools.cycle(itertools.combinations(PRIMES, 2))
        self.answered = 0
        self.enough = False

    async def client(self, session: Any) -> None:
        while not self.enough:
            pair = next(self.pairs)
            async with session.get(f"{self.url}/factors/{pair[0] * pair[1]}") as answer:
                assert answer.status == 200
                assert await answer.json() == {"n": pair[0] * pair[1], "factors": list(pair)}
            self.answered += 1

    async def killer(self, server: int) -> int:
        """Kills two workers, and more until one had a task in its hands: nobody's third try is killed, too."""
        for kills in itertools.count():
            seen = self.answered
            while self.answered < seen + CLIENTS:
                await asyncio.sleep(0.01)
            living, hit = await asyncio.to_thread(workers, server)
            if kills >= 2 and hit:
                self.enough = True
                return kills
            if living:
                os.kill(living[min(living, key=lambda v: (v + kills) % len(living))], signal.SIGKILL)
        raise AssertionError

    async def run(self, server: int) -> int:
        import aiohttp

        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            asyncio.timeout(3 * LONG_S),
            asyncio.TaskGroup() as group,
        ):
            for _ in range(CLIENTS):
                group.create_task(self.client(session))
            kills = group.create_task(self.killer(server))
        return kills.result()


@contextlib.contextmanager
def serving(lacks: Callable[[str], NoReturn]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The service, and the port on which it listens; killed at the end if it has not ended."""
    if find_spec("aiohttp") is None:
        lacks("aiohttp")
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]

    def listens() -> bool:
        assert server.poll() is None
        with socket.socket() as link:
            return link.connect_ex(("localhost", port)) == 0

    command = [sys.executable, str(EXAMPLE), str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as server:
        try:
            until(listens, "somebody who listens")
            yield server, port
        finally:
            server.kill()


def test_no_request_is_lost_when_workers_are_killed(lacks: Callable[[str], NoReturn]) -> None:
    with serving(lacks) as (server, port):
        load = Load(f"http://localhost:{port}")
        kills = asyncio.run(load.run(server.pid))
        assert load.answered >= 3 * CLIENTS
        os.killpg(server.pid, signal.SIGINT)  # Ctrl-C
        said, logged = server.communicate(timeout=LONG_S)
    assert server.returncode == 0, logged
    assert f"Running on http://localhost:{port}" in said
    assert logged.count("worker ended (signal 9 (SIGKILL))") == kills, logged
    assert "Traceback" not in logged
    with socket.socket() as link:
        assert link.connect_ex(("localhost", port)) != 0


def test_the_guides_terminals(lacks: Callable[[str], NoReturn], tmp_path: Path) -> None:
    """With a hundred requests."""
    if shutil.which("curl") is None:
        lacks("curl")
    page = "docs/executor.md"
    ((_, begun),) = session(page, "web_service.py")
    (url, _), (curl, _), (ps, listed), (_, counted) = session(page, "curl")
    with serving(lacks) as (server, port):
        url = url.replace("8080", str(port)).replace("999", "099")
        before = workers(server.pid)[0]
        killed = list(before.values())[-1]
        output = shell("\n".join([url, curl, ps, f"kill -9 {killed}", "wait"]), tmp_path)
        until(
            lambda: len(now := workers(server.pid)[0]) == len(before) and killed not in now.values(), "the next worker"
        )
        os.killpg(server.pid, signal.SIGINT)
        said, logged = server.communicate(timeout=LONG_S)
    assert said.startswith(begun.replace("8080", str(port)))
    assert (shape(counted, digits=9), "100 200" in shape(output, digits=9)) == (["1000 200"], True)
    told, shown = (re.sub("RUNNING_.|WAITING", "...", text) for text in (output, listed + counted))
    assert sorted(shape(told, digits=1)) == sorted(shape(shown, digits=1))
    assert shape(logged, digits=1) == shape(block(page, "", "vcore 1: worker ended"), digits=1)
