"""docs/seed.md names what exists: functions of the sources, and tests of this folder."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ["Ours", "What differs, and why", "Shown by"]

SEED = [
    "vcoreid_is_safe",
    "get_vcpd_mbox_priv",
    "get_vcpd_mbox_pub",
    "get_vcpd_mbox",
    "can_msg_vcore",
    "set_vcore_msgable",
    "post_ev_msg",
    "post_vc_msg",
    "try_notify",
    "spam_vcore",
    "try_spam_vcore",
    "spam_list_member",
    "spam_public_msg",
    "send_indir",
    "send_event",
    "send_kernel_event",
    "post_vcore_event",
    "send_posix_signal",
]
"""Every function of the seed's file."""


def rows() -> list[list[str]]:
    """The tables' rows, heads and rules left out."""
    found = []
    for line in (ROOT / "docs" / "seed.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("|") or set(line) <= set("|- "):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 4, line
        if cells[1:] != COLUMNS:
            found.append(cells)
    assert found
    return found


@cache
def defined(path: Path) -> frozenset[str]:
    """The functions and classes at the top of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:30])
def test_function_and_test_of_a_row_exist(row: list[str]) -> None:
    what, ours, why, shown = row
    assert what
    assert why
    where = re.fullmatch(r"`([\w/]+\.py):(\w+)`", ours)
    assert where, f"{ours}: write `folder/file.py:function`"
    assert where[2] in defined(ROOT / "src" / "upcall" / where[1]), f"{ours} is not there"
    test = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", shown)
    assert test, f"{shown}: write `test_file.py::test_name`"
    assert test[2] in defined(ROOT / "tests" / test[1]), f"{shown} is not there"


@pytest.mark.parametrize("function", SEED)
def test_every_function_of_the_seed_has_a_row_and_keeps_its_name(function: str) -> None:
    ours = [row[1] for row in rows() if row[0] == f"`{function}`"]
    assert len(ours) == 1
    assert ours[0].endswith(f":{function}`")
