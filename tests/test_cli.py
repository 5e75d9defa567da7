"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from upcall import inspect
from upcall.host import segment as files

INGEST = """
import os

import upcall

proc = upcall.Proc("ingest", vcores=2, memory="16 MiB")
orders = proc.queue("orders")
appro = proc.queue("appro", flags=upcall.EventFlag.IPI | upcall.EventFlag.INDIR | upcall.EventFlag.FALLBACK
                                  | upcall.EventFlag.VCORE_APPRO)
other = 7

@proc.on("order.created")
def created(ev):
    # One write, short enough for a pipe to keep it together: two vcores print at once.
    os.write(1, f"{ev.queue} {bytes(ev.payload)!r} {ev.arg1} {ev.arg4}\\n".encode())
"""
COMMAND = [sys.executable, "-m", "upcall.cli"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with `ingest.py` in it."""
    (tmp_path / "ingest.py").write_text(INGEST)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def upcall(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command's exit code and what it said."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, **options)


def fails(*arguments: str) -> str:
    """The one line of a command that cannot do what it is told."""
    done = upcall(*arguments)
    assert done.returncode == 1, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another process does; pytest's time-out ends it if that never comes."""
    while not condition():
        time.sleep(0.01)


@pytest.fixture
def ingest(home: Path) -> Iterator[subprocess.Popen[str]]:
    """`upcall run ingest:proc`, once it runs."""
    running = subprocess.Popen([*COMMAND, "run", "ingest:proc"], stdout=subprocess.PIPE, text=True)
    until(lambda: running.poll() is not None or is_up("ingest"))
    yield running
    running.terminate()
    running.communicate()


def is_up(name: str) -> bool:
    found = {process.name: process for process in inspect.snapshots()}
    return name in found and len(found[name].vcores) == 2 and all(v.pid for v in found[name].vcores)


def said(running: subprocess.Popen[str], lines: int) -> list[str]:
    assert running.stdout is not None
    return sorted(running.stdout.readline().rstrip("\n") for _ in range(lines))


def test_run_on_a_terminal_says_what_it_starts_and_how_to_stop_it(home: Path) -> None:
    ours, theirs = os.openpty()
    running = subprocess.Popen([*COMMAND, "run", "ingest:proc"], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        assert terminal.read(200).strip() == b"starting ingest: 2 vcores; Ctrl-C stops it"
        until(lambda: any(found.attended for found in inspect.snapshots()))
        running.send_signal(signal.SIGINT)
        assert running.communicate() == (b"", None)
        assert running.returncode == 0


@pytest.mark.parametrize("command", ["run", "send", "ps", "dump", "clean", "demo", "storm", "bench"])
def test_help_has_examples(command: str) -> None:
    done = upcall(command, "--help")
    assert done.returncode == 0
    assert f"Examples:\n    upcall {command}" in done.stdout
    assert f"  {command} " in upcall("--help").stdout


def test_python_m() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "upcall", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("Usage: python -m upcall [OPTIONS] COMMAND")


def test_version() -> None:
    assert upcall("--version").stdout.startswith("upcall, version ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "ingest"),
        ("run", "ingest:"),
        ("run", "in gest:proc"),
        ("send", "ingest", "orders"),
        ("send", "ingest", "orders", "x", "--arg1", "65536"),
        ("send", "ingest", "orders", "x", "--payload", "a", "--lines", "-"),
        ("send", "ingest", "orders", "x", "--lines", "/no/such/file"),
        ("demo", "--files", "0"),
        ("nothing",),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = upcall(*arguments, input="")
    assert done.returncode == 2
    assert "Error: " in done.stderr


def test_run_send_and_ps(ingest: subprocess.Popen[str], home: Path) -> None:
    assert upcall("send", "ingest", "orders", "order.created", "--payload", "é").returncode == 0
    assert said(ingest, 1) == [f"orders {'é'.encode()!r} 0 0"]
    done = upcall(
        "send", "ingest", "appro", "order.created", "--arg1", "3", "--arg4", str(2**64 - 1), "--vcore", "1"
    )  # fmt: skip
    assert done.returncode == 0
    assert said(ingest, 1) == [f"appro b'' 3 {2**64 - 1}"]

    (home / "lines").write_bytes(b"a\n\nb\r\n" + b"c" * 3_000)
    assert upcall("send", "ingest", "orders", "order.created", "--lines", "lines").stdout == "4 events sent\n"
    wanted = [b"a", b"", b"b\r", b"c" * 3_000]
    assert said(ingest, 4) == sorted(f"orders {line!r} 0 0" for line in wanted)
    done = upcall("send", "ingest", "orders", "order.created", "--lines", "-", "--arg1", "9", input="d\ne\n")
    assert done.stdout == "2 events sent\n"
    assert said(ingest, 2) == ["orders b'd' 9 0", "orders b'e' 9 0"]

    until(lambda: inspect.snapshot("ingest").waiting == 0)
    (shown,) = json.loads(upcall("ps", "--json").stdout)
    assert (shown["name"], shown["pid"], shown["waiting"], shown["attended"]) == ("ingest", ingest.pid, 0, True)
    assert [(vcore["id"], vcore["pending"]) for vcore in shown["vcores"]] == [(0, 0), (1, 0)]
    assert [(queue["name"], queue["depth"], queue["dead"]) for queue in shown["queues"]] == [
        ("orders", 0, 0),
        ("appro", 0, 0),
    ]
    assert sum(vcore["handled"] for vcore in shown["vcores"]) == 8
    assert "ingest" in upcall("ps").stdout
    assert "IPI|INDIR|FALLBACK" in upcall("ps", "ingest").stdout
    ingest.terminate()
    assert ingest.wait() == 0
    assert upcall("ps").stdout == "no processes\n"
    assert upcall("ps", "--json").stdout == "[]\n"


def test_dump(ingest: subprocess.Popen[str]) -> None:
    words = json.loads(upcall("dump", "ingest", "--json").stdout)
    assert set(words) == {"header", "procinfo", "types", "vcores", "queues", "mailboxes", "pages", "slots", "arena"}
    assert words["procinfo"]["supervisor_pid"] == ingest.pid
    assert "proc_lock" in upcall("dump", "ingest").stdout


def test_errors_are_one_line(ingest: subprocess.Popen[str]) -> None:
    assert "no process 'other'" in fails("send", "other", "orders", "order.created")
    assert "(it has: appro, orders)" in fails("send", "ingest", "nothing", "order.created")
    assert "(it knows: order.created)" in fails("send", "ingest", "orders", "nothing")
    assert "vcore 2 of 'ingest'" in fails("send", "ingest", "appro", "order.created", "--vcore", "2")
    assert "no process 'other'" in fails("ps", "other")
    assert "no process 'other'" in fails("dump", "other")
    assert "process name '../x'" in fails("ps", "../x")
    assert "runs already" in fails("run", "ingest:proc")


def test_what_run_cannot_find(home: Path) -> None:
    (home / "broken.py").write_text("import nowhere_to_be_found\n")
    (home / "wrong.py").write_text("1 / 0\n")
    assert "no module 'nothing'" in fails("run", "nothing:proc")
    assert "no module 'nothing'" in fails("run", "nothing.inner:proc")
    assert "'ingest' has no 'process'" in fails("run", "ingest:process")
    assert "module 'ingest' has 'other' of type int: name an upcall.Proc (there: proc)" in fails("run", "ingest:other")
    assert "No module named 'nowhere_to_be_found'" in fails("run", "broken:proc")
    done = upcall("run", "wrong:proc")
    assert done.returncode == 1
    # The program's own error, with its traceback, and then the line.
    assert "1 / 0" in done.stderr
    assert done.stderr.splitlines()[-1] == "Error: importing 'wrong' failed: ZeroDivisionError: division by zero"


def test_ctrl_c_says_how_many_lines_went(ingest: subprocess.Popen[str]) -> None:
    sending = subprocess.Popen(
        [*COMMAND, "send", "ingest", "orders", "order.created", "--lines", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert sending.stdin is not None
    assert sending.stderr is not None
    sending.stdin.write("a\nb\nhalf a line")
    sending.stdin.flush()
    # Lines are sent as they come: the file is still open.
    assert said(ingest, 2) == ["orders b'a' 0 0", "orders b'b' 0 0"]
    sending.send_signal(signal.SIGINT)
    assert sending.wait() == 130
    assert sending.stderr.read() == "stopped: 2 events sent\n"
    sending.stdin.close()
    sending.stderr.close()


def test_ctrl_c_ends_run(ingest: subprocess.Popen[str]) -> None:
    ingest.send_signal(signal.SIGINT)
    assert ingest.wait() == 0
    assert upcall("clean").stdout == "nothing to clean\n"


@pytest.mark.parametrize(
    "command", ["check", "demo --no-peers", "bench --rows send-message --systems upcall --scale 50"]
)
def test_ctrl_c_ends_what_takes_long_at_once(command: str) -> None:
    """Exit code 130, one word, and no process goes on (`nothing_left`): explorations of `check` look at no signal."""
    process = subprocess.Popen(
        [*COMMAND, *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    said += process.communicate(timeout=20)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("stopped")


def test_clean(upcall_dir: Path) -> None:
    made = files.create("left", files.Geometry.for_memory(1, 1 << 20))
    made.close()
    (upcall_dir / "odd").mkdir()
    (upcall_dir / "odd" / "segment").write_bytes(b"x" * 5000)
    assert "odd: segment of 'odd' is not an upcall segment" in upcall("ps").stdout
    assert json.loads(upcall("ps", "--json").stdout)[1]["state"] == "DAMAGED"
    assert upcall("clean").stdout.splitlines() == [
        "removed left: nothing waited",
        "kept odd: segment of 'odd' is not an upcall segment: it starts with b'xxxxxxxx'; --discard removes it",
    ]
    (gone,) = json.loads(upcall("clean", "--discard", "--json").stdout)
    assert (gone["name"], gone["removed"], gone["lost"]) == ("odd", True, None)
    assert upcall("clean").stdout == "nothing to clean\n"


def test_output_into_a_pipe_that_closes(ingest: subprocess.Popen[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, "dump", "ingest"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr
