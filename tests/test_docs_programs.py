"""The programs of docs/asyncio.md, docs/executor.md and the README do what the pages say, as they stand there; parts of
programs stand in a program that gives them what they leave out. (That of docs/sources.md is in test_examples_sources.py, the
README's first one in test_docs_console.py.)"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import upcall
from pages import block, blocks, shape
from procs import connected, output, program, until, vcore_info
from upcall.proc import ON_DEATH


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages' processes have the usual names."""
    (tmp_path / "segments").mkdir(mode=0o700)
    monkeypatch.setenv("UPCALL_DIR", str(tmp_path / "segments"))


def test_handlers(tmp_path: Path) -> None:
    with program(tmp_path, blocks("docs/asyncio.md")[0]) as process:
        with connected("ingest", "orders") as remote:
            remote.queue("orders").send("order.created", b"abc")
            until(lambda: sum(vcore.handled for vcore in vcore_info("ingest").values()))
        process.send_signal(signal.SIGTERM)
        assert re.fullmatch(r"vcore [0-3] took b'abc'\n", output(process))


@pytest.mark.parametrize("run", ["asyncio.run(main())", "trio.run(main)", "uvloop.run(main())"])
def test_a_program_with_a_loop_of_its_own_and_sending(tmp_path: Path, run: str) -> None:
    receiver = (
        blocks("docs/asyncio.md")[1]
        .replace("asyncio.run(main())", run)
        .replace("import asyncio", "import asyncio, trio, uvloop")
    )
    sender = "import asyncio, upcall\nasync def main():\n  with upcall.connect('me') as remote:\n"
    sender += (
        textwrap.indent(blocks("docs/asyncio.md")[2], "    ")
        .replace('"orders"', '"in"')
        .replace("order.created", "order")
    )
    # The receiver ends when it has handled the last one: its sender may find that the process is going.
    sender += "    try:\n      await remote.queue('in').asend('order', b'last', arg1=1)\n"
    sender += "    except upcall.ProcessGone:\n      pass\nasyncio.run(main())\n"
    with program(tmp_path, receiver, name="me.py") as process:
        connected("me", "in").close()
        assert subprocess.run([sys.executable, "-c", sender]).returncode == 0
        assert output(process) == "b'...'\n" * 3 + "b'last'\n"


def test_a_loop_of_another_kind(tmp_path: Path) -> None:
    source = "import select, upcall\n" + blocks("docs/asyncio.md")[3].replace(
        "            ev.done()", "            ev.done(); print(end='', flush=True)"
    )
    with program(tmp_path, source) as process:
        with connected("me", "in") as remote:
            remote.queue("in").send("order", b"abc")
        assert process.stdout
        assert process.stdout.readline() == "b'abc'\n"


def test_an_executor(tmp_path: Path) -> None:
    (source, *_) = blocks("docs/executor.md")
    assert "range(1_000_000)" in source
    with program(tmp_path, source.replace("1_000_000", "10_000")) as process:
        assert output(process) == f"{sum(x * x for x in range(10_000))}\n"


def test_an_executor_whose_worker_dies(tmp_path: Path) -> None:
    typed, said = block("docs/executor.md", "console", ">>> ").removeprefix(">>> ").split("\n", 1)
    source = f"import os\nfrom upcall import Executor\nwith Executor() as pool:\n    {typed}\n"
    with program(tmp_path, source) as process:
        assert shape(output(process))[-1:] == shape(said)


def test_the_executor_of_the_readme(tmp_path: Path) -> None:
    source = "import numpy, upcall\nwork, array = numpy.sum, numpy.ones(3 << 10)\n" + block(
        "README.md", "python", "upcall.Executor"
    ).replace("1_000_000", "1_000")
    with program(tmp_path, source + "print(future.result(), sum(results))\n") as process:
        assert output(process) == f"3072.0 {sum(range(1000))}\n"


def test_what_the_readmes_queues_do_after_a_death() -> None:
    proc = upcall.Proc("ingest")
    exec(block("README.md", "python", "mails = proc.queue"), {"proc": proc})
    wanted = dict(zip(("orders", "mails", "ticks"), ON_DEATH.values(), strict=True))
    assert {name: queue.on_death for name, queue in proc.definition.queues.items()} == wanted
    assert proc.definition.queues["orders"].max_redeliveries == 3


def test_joblib(tmp_path: Path) -> None:
    given = """
        class search:
            def fit(X, y):
                print(joblib.Parallel()(joblib.delayed(max)(x, y) for x in X))
        X, y = range(3), 1
    """
    part = blocks("docs/executor.md")[-1]
    with program(tmp_path, "import joblib\n" + textwrap.dedent(given) + part) as process:
        assert output(process) == "[1, 1, 2]\n"
