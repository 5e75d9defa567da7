"""The examples of taps, run as a user runs them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from procs import LONG_S, nobody_stays, pids, until
from upcall import inspect
from upcall.host.segment import folder

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
UPCALL = [sys.executable, "-m", "upcall.cli"]


@pytest.fixture(autouse=True)
def nobody_left() -> Iterator[None]:
    """A test that fails leaves workers that would carry on."""
    yield
    nobody_stays("chat")
    nobody_stays("log-analyser")
    nobody_stays("sources")


class Guest:
    """One who has dialled in."""

    def __init__(self, port: int) -> None:
        self.link = until(lambda: self.dial(port), "somebody who listens")
        self.lines = self.link.makefile("r")
        self.me = self.link.getsockname()[1]

    @staticmethod
    def dial(port: int) -> socket.socket | None:
        try:
            return socket.create_connection(("localhost", port), LONG_S)
        except ConnectionRefusedError:
            return None

    def says(self, text: str) -> None:
        self.link.sendall(f"{text}\r\n".encode())

    def hears(self, text: str) -> None:
        assert self.lines.readline() == f"{text}\n"

    def close(self) -> None:
        self.lines.close()
        self.link.close()


def test_a_chat_goes_on_when_its_workers_and_its_supervisor_are_killed() -> None:
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "chat.py"), str(port)]
    with subprocess.Popen(command, start_new_session=True) as chat, contextlib.ExitStack() as ends:
        ends.callback(nobody_stays, "chat")
        guests: list[Guest] = []
        for _ in range(3):
            new = ends.enter_context(contextlib.closing(Guest(port)))
            guests.append(new)
            for guest in guests:
                guest.hears(f"* {new.me} is here")
        one, two, three = guests
        for round_ in range(2):
            if round_:
                chat.kill()  # the supervisor; whoever spoke last has everybody's connection
                until(lambda: inspect.snapshot("chat").watcher, "a watcher")
            else:
                for victim in pids("chat").values():
                    os.kill(victim, signal.SIGKILL)
            one.says(f"hello {round_}")
            for guest in guests:
                guest.hears(f"{one.me}: hello {round_}")
        two.close()
        for guest in (one, three):
            guest.hears(f"* {two.me} has left")
        subprocess.run([*UPCALL, "stop", "chat"], check=True, capture_output=True, timeout=LONG_S)
        assert one.lines.readline() == ""


def line(status: int, i: int) -> str:
    return f'10.0.0.{i % 250} - - [27/Nov/2026:22:00:00 +0000] "GET /{i} HTTP/1.1" {status} 512\n'


def test_a_log_is_analysed_while_it_grows_and_turns(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("".join(line(200, i) for i in range(500)))
    command = f"tail -n +1 -F {log} 2>/dev/null | {sys.executable} {EXAMPLES}/log_analyser.py"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True, start_new_session=True) as shell:
        assert shell.stdout
        reports = iter(shell.stdout.readline, "")
        assert next(reports) == "500 lines: 200 x500\n"
        for victim in (1, 2):  # idle ones; vcore 0 has the sums
            os.kill(pids("log-analyser")[victim], signal.SIGKILL)
        with log.open("a") as more:
            more.writelines(line(404, i) for i in range(300))
        assert "800 lines: 200 x500, 404 x300\n" in reports
        log.rename(tmp_path / "access.log.1")
        log.write_text(line(500, 1) + "nonsense\n")
        assert "802 lines: 200 x500, 404 x300, 500 x1, no such line x1\n" in reports
        supervisor = inspect.snapshot("log-analyser").pid
        assert supervisor
        os.kill(supervisor, signal.SIGUSR1)
        assert next(reports).startswith("802 lines: ")
        os.killpg(shell.pid, signal.SIGINT)  # Ctrl-C
        assert not list(reports)
    assert not (folder() / "log-analyser").exists()


def test_the_end_of_the_log_ends_the_analyser() -> None:
    text = "".join(line(200 + i % 2, i) for i in range(5000))
    command = [sys.executable, str(EXAMPLES / "log_analyser.py")]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=LONG_S)
    assert done.stdout.splitlines()[-1] == "5000 lines: 200 x2500, 201 x2500"
    assert done.stderr == ""


def test_the_guides_program_says_what_the_guide_says(tmp_path: Path) -> None:
    page = (EXAMPLES.parent / "docs" / "sources.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"^```python\n(# sources\.py\n.*?)^```", page, re.M | re.S)
    (said,) = re.findall(r"^```\n(beat, .*?)^```", page, re.M | re.S)
    (tmp_path / "sources.py").write_text(source)
    command = [sys.executable, str(tmp_path / "sources.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stdout
        lines: list[str] = []
        wanted = {re.sub("vcore .:", "", line) for line in said.splitlines() if not line.startswith("beat")}
        while wanted:
            lines.append(run.stdout.readline())
            assert lines[-1], lines
            wanted.discard(re.sub("vcore .:", "", lines[-1].rstrip()))
            if len(lines) == 1:
                run.send_signal(signal.SIGHUP)
        run.terminate()
    assert "beat, 0 missed\n" in lines
