"""Links of the pages lead somewhere, tests that they name are there, and docs/performance.md has every row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from upcall.bench.sample import ROWS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_two_commands_are_there() -> None:
    assert "    pip install . && upcall demo " in README
    assert "    pip install '.[test]' && pytest " in README


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
