"""The README's program and commands do what it says, links lead somewhere, and docs/performance.md has every row."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from upcall.bench.sample import ROWS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
UPCALL = [sys.executable, "-m", "upcall.cli"]


def test_two_commands_are_there() -> None:
    assert "    pip install . && upcall demo " in README
    assert "    pip install '.[test]' && pytest " in README


def test_program_takes_the_event_that_the_readme_sends(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n# ingest\.py\n(.*?)^```", README, re.M | re.S)
    assert len([line for line in program.splitlines() if line]) <= 12
    (tmp_path / "ingest.py").write_text(program, encoding="utf-8")
    (payload,) = re.findall(r"^\$ upcall send .* --payload '(.*)'$", README, re.M)
    with subprocess.Popen([*UPCALL, "run", "ingest:proc"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as run:
        try:
            send = [*UPCALL, "send", "ingest", "orders", "order.created", "--payload", payload]
            while subprocess.run(send, capture_output=True).returncode:
                assert run.poll() is None
            for source in ("access.log", "-"):
                (tmp_path / "access.log").write_text("GET /a\nGET /b\nGET /c\n")
                with open(tmp_path / "access.log") as lines:
                    command = [*UPCALL, "send", "ingest", "orders", "order.created", "--lines", source]
                    sent = subprocess.run(command, cwd=tmp_path, stdin=lines, capture_output=True, text=True)
                assert sent.stdout == "3 events sent\n"
        finally:
            run.terminate()
        said = run.communicate(timeout=30)[0].splitlines()
    assert all(re.fullmatch(r"vcore [0-3] took b'.*'", line) for line in said)
    lines = sorted(line.partition(" took ")[2] for line in said)  # on a pipe, each worker's lines come at its end
    assert lines == ["b'GET /a'"] * 2 + ["b'GET /b'"] * 2 + ["b'GET /c'"] * 2 + [f"b'{payload}'"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        leads_to = page.parent / path if path else page
        assert leads_to.exists(), target
        assert not anchor or anchor in anchors(leads_to), target


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_row_of_the_benchmark_is_explained() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `([\w-]+)` \| ([\w/]+) \|", page, re.M)) == {
        row.name: row.unit for row in ROWS.values()
    }


def test_tests_that_the_pages_name_are_there() -> None:
    """`test_file.py::test_name`, and `::test_other` after it for the same file."""
    missing = []
    for page in PAGES:
        file = ""
        for named, test in re.findall(r"`(test_\w+\.py)?(?:::)?(test_\w+)?`", page.read_text(encoding="utf-8")):
            file = named or file
            path = ROOT / "tests" / file
            if file and not (path.is_file() and (not test or f"def {test}(" in path.read_text(encoding="utf-8"))):
                missing.append(f"{page.name}: {file}::{test}")
    assert missing == []
