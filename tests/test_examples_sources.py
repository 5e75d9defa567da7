"""The examples of taps, run as a user runs them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pages import block, shape, shell
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
        self.heard = ""

    @staticmethod
    def dial(port: int) -> socket.socket | None:
        try:
            return socket.create_connection(("localhost", port), LONG_S)
        except ConnectionRefusedError:
            return None

    def says(self, text: str) -> None:
        self.link.sendall(f"{text}\r\n".encode())

    def hears(self, text: str) -> None:
        self.heard += f"{text}\n"
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

        def joins() -> Guest:
            guests.append(ends.enter_context(contextlib.closing(Guest(port))))
            for guest in guests:
                guest.hears(f"* {guests[-1].me} is here")
            return guests[-1]

        def says(speaker: Guest, text: str) -> None:
            speaker.says(text)
            for guest in guests:
                guest.hears(f"{speaker.me}: {text}")

        one, two = joins(), joins()
        says(one, "hello")
        for victim in pids("chat").values():
            os.kill(victim, signal.SIGKILL)
        says(two, "anybody killed?")
        for page in ("README.md", "docs/sources.md"):
            assert shape(block(page, "", "hello")) == shape(one.heard)
        three = joins()
        chat.kill()  # the supervisor; whoever spoke last has everybody's connection
        until(lambda: inspect.snapshot("chat").watcher, "a watcher")
        says(one, "hello again")
        two.close()
        for guest in (one, three):
            guest.hears(f"* {two.me} has left")
        subprocess.run([*UPCALL, "stop", "chat"], check=True, capture_output=True, timeout=LONG_S)
        assert one.lines.readline() == ""


def line(status: int, i: int) -> str:
    return f'10.0.0.{i % 250} - - [27/Nov/2026:22:00:00 +0000] "GET /{i} HTTP/1.1" {status} 512\n'


def counts(report: str) -> Counter[int]:
    """How many lines of each status."""
    return Counter({int(status): int(count) for status, count in re.findall(r"(\d+) x(\d+)", report)})


def test_a_log_is_analysed_while_it_grows_and_turns(tmp_path: Path) -> None:
    """As docs/sources.md shows it; and then it turns."""
    first, second = block("docs/sources.md", "", "200 x").splitlines(keepends=True)
    log = tmp_path / "access.log"
    log.write_text("".join(map(line, counts(first).elements(), range(400))))
    command = f"tail -n +1 -F {log} 2>/dev/null | {sys.executable} {EXAMPLES}/log_analyser.py"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True, start_new_session=True) as tail:
        assert tail.stdout
        reports = iter(tail.stdout.readline, "")
        assert next(reports) == first
        for victim in (1, 2):  # idle ones; vcore 0 has the sums
            os.kill(pids("log-analyser")[victim], signal.SIGKILL)
        with log.open("a") as more:
            more.writelines(map(line, (counts(second) - counts(first)).elements(), range(400)))
        assert second in reports
        log.rename(tmp_path / "access.log.1")
        log.write_text(line(500, 1) + "nonsense\n")
        assert "402 lines: 200 x199, 304 x68, 404 x79, 500 x55, no such line x1\n" in reports
        supervisor = inspect.snapshot("log-analyser").pid
        assert supervisor
        os.kill(supervisor, signal.SIGUSR1)
        assert next(reports).startswith("402 lines: ")
        os.killpg(tail.pid, signal.SIGINT)  # Ctrl-C
        assert not list(reports)
    assert not (folder() / "log-analyser").exists()


def test_the_end_of_the_log_ends_the_analyser() -> None:
    text = "".join(line(200 + i % 2, i) for i in range(5000))
    command = [sys.executable, str(EXAMPLES / "log_analyser.py")]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=LONG_S)
    assert done.stdout.splitlines()[-1] == "5000 lines: 200 x2500, 201 x2500"
    assert done.stderr == ""


def test_the_guides_program_says_what_the_guide_says(tmp_path: Path) -> None:
    source = block("docs/sources.md", "python", "# sources.py")
    said = block("docs/sources.md", "", "from a pipe")
    shown = shape(block("docs/sources.md", "", "waits for"), digits=1)
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
        listed = shape(shell("upcall ps sources", tmp_path), digits=1)
        run.terminate()
    assert "beat, 0 missed\n" in lines
    at = listed.index(shown[0])
    assert listed[at : at + len(shown)] == shown
