"""The terminals of the README: what is typed there is typed here, from top to bottom, and says what stands there. (Those of
the guides are tried where their programs run: test_examples_*.py, test_docs_programs.py, test_demo.py, test_storm.py.)"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import upcall
from pages import block, session, shape, shell
from procs import connected, program, until
from upcall import inspect

PAGE = "README.md"
LETHAL = """
    if ev.payload == b'{"id": 13}' and not os.path.exists("mended"):
        os.kill(os.getpid(), 9)
    print("""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the log that is sent, and the program, whose handler one event kills until it is mended."""
    source = block(PAGE, "python", "# ingest.py")
    assert len([line for line in source.splitlines() if line and line[0] != "#"]) <= 12
    (tmp_path / "ingest.py").write_text("import os\n" + source.replace("\n    print(", LETHAL))
    (tmp_path / "access.log").write_text("GET /a\nGET /b\nGET /c\n")
    (tmp_path / "segments").mkdir(mode=0o700)
    monkeypatch.setenv("UPCALL_DIR", str(tmp_path / "segments"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def runs(home: Path, line: str) -> Iterator[subprocess.Popen[str]]:
    """The first terminal."""
    command = [sys.executable, "-m", "upcall.cli", *line.split()[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: asleep(0), "its workers")
            yield process
        finally:
            process.terminate()


def asleep(handled: int, dead: int = 0) -> bool:
    """All that was sent has been handled, or is a dead letter, and everybody is there and sleeps."""
    for found in inspect.snapshots():
        if found.name == "ingest" and (found.total("handled"), found.dead) == (handled, dead):
            return found.state == "WAITING" and all(v.pid and v.state == "OFFLINE" for v in found.vcores)
    return False


def plays(home: Path, *typed: tuple[str, str]) -> None:
    """Each command says what the page says."""
    for line, said in typed:
        assert shape(shell(line, home)) == shape(said), line


def test_the_first_terminals(home: Path) -> None:
    (run, _), *sends, ps = session(PAGE, "upcall run")
    with runs(home, run) as first:
        plays(home, *sends)
        until(lambda: asleep(4))
        plays(home, ps)
        exec(block(PAGE, "python", "upcall.connect"), {"upcall": upcall})
        receiver = "import upcall, asyncio\ningest = upcall.connect('ingest')\nasync def main():\n"
        receiver += textwrap.indent(block(PAGE, "python", "aio.Process"), "    ") + "asyncio.run(main())"
        with program(home, receiver), connected("me", "in") as me:
            me.queue("in").send("order", b"me")
            until(lambda: asleep(9))
        plays(home, *session(PAGE, "upcall restart"))
        assert first.stdout
        said = re.sub("^vcore [0-3] took ", "", first.stdout.read(), flags=re.M).splitlines()
    wanted = re.sub("^vcore [0-3] took ", "", block(PAGE, "", "took"), flags=re.M).splitlines()
    from_python = [r"b'GET /a\n'", r"b'GET /b\n'", r"b'GET /c\n'", "b'me'", """b'{"id": 2}'"""]
    assert sorted(said) == sorted(wanted + from_python)


def test_the_terminal_of_dead_letters(home: Path) -> None:
    (run, _), (send, _), *_ = session(PAGE, "upcall run")
    lists, resends = session(PAGE, "upcall dead")
    with runs(home, run):
        plays(home, (send.replace("1}", "13}"), ""))
        until(lambda: asleep(0, dead=1), "a dead letter")
        plays(home, lists)
        (home / "mended").touch()
        plays(home, resends)
        until(lambda: asleep(1))
        shell("upcall stop ingest", home)
