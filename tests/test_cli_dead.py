"""`upcall dead`, and what the other commands say of dead letters."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import upcall
from procs import LONG_S, Notes, Words, discard, until

PAYLOADS = [b'{"id": 1}', b"", b"\x1b[31m\xff\n\xc3\xa4" * 200]


@pytest.fixture
def box(notes: Notes) -> Iterator[upcall.Proc]:
    """A running process with three letters in the queue "orders", and one to a vcore. Sent again they kill nobody."""
    proc, mild = upcall.Proc("box", vcores=2, memory="16 MiB"), Words(1)
    orders = proc.queue("orders", on_death="dead-letter")
    proc.queue("others")

    @proc.on("order")
    def order(ev: upcall.Event) -> None:
        if not mild[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        notes(ev.arg1, ev.queue)

    proc.start()
    for i, payload in enumerate(PAYLOADS):
        orders.send("order", payload, arg1=i, arg4=1 << 40)
        assert proc.drain(LONG_S) == []
    proc.vcore(1).send("order", arg1=3, private=True)
    until(lambda: len(proc.dead_letters()) == 4, "four dead letters")  # no drain: it waits for nobody who is dead
    mild[0] = 1
    yield proc
    proc.stop(timeout=LONG_S)
    discard("box")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "upcall.cli", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def says(*arguments: str) -> str:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def rows(text: str) -> list[list[str]]:
    """A table's lines that begin with a number, without its blanks."""
    return [line.split() for line in text.splitlines() if line.split() and line.split()[0].isdigit()]


def ids() -> list[int]:
    found: list[dict[str, Any]] = json.loads(says("dead", "box", "--json"))
    return [letter["id"] for letter in found]


def test_letters_are_listed(box: upcall.Proc) -> None:
    assert rows(says("dead", "box")) == [
        ["1", "orders", "order", "1", "9", "0", "0", "0", "1,099,511,627,776"],
        ["2", "orders", "order", "1", "0", "1", "0", "0", "1,099,511,627,776"],
        ["3", "orders", "order", "1", "1800", "2", "0", "0", "1,099,511,627,776"],
        ["4", "vcore", "1,", "private", "order", "4", "0", "3", "0", "0", "0"],
    ]
    assert [row[0] for row in rows(says("dead", "box", "--queue", "orders"))] == ["1", "2", "3"]
    assert [row[0] for row in rows(says("dead", "box", "4", "2"))] == ["4", "2"]
    assert says("dead", "box", "--queue", "others") == "no dead letters\n"


def test_payloads_are_shown_and_do_nothing_to_the_terminal(box: upcall.Proc) -> None:
    text = says("dead", "box", "1", "3", "--payload")
    assert '1: order, 9 bytes\n{"id": 1}\n' in text
    assert "3: order, 1800 bytes\n\\x1b[31m\\xff\nä\\x1b[31m\\xff\nä" in text
    assert "\x1b" not in text


def test_letters_as_json(box: upcall.Proc) -> None:
    found = json.loads(says("dead", "box", "--json"))
    assert found[0] == {
        "id": 1, "queue": "orders", "vcore": None, "private": False, "type": "order", "arg1": 0, "arg2": 0, "arg3": 0,
        "arg4": 1 << 40, "size": 9, "payload": None, "deaths": 1,
    }  # fmt: skip
    assert (found[3]["queue"], found[3]["vcore"], found[3]["private"], found[3]["deaths"]) == (None, 1, True, 4)
    found = json.loads(says("dead", "box", "--json", "--payload"))
    assert [base64.b64decode(letter["payload"]) for letter in found] == [*PAYLOADS, b""]


def test_letters_are_sent_again(box: upcall.Proc, notes: Notes) -> None:
    assert says("dead", "box", "1", "3", "--resend") == "2 dead letters re-sent\n"
    assert ids() == [2, 4]
    assert says("dead", "box", "--queue", "orders", "--resend") == "1 dead letter re-sent\n"
    assert json.loads(says("dead", "box", "--resend", "--json")) == {"resent": 1}
    assert box.drain(LONG_S) == []
    assert sorted(notes.read()) == [[0, "orders"], [1, "orders"], [2, "orders"], [3, None]]
    assert says("dead", "box") == "no dead letters\n"
    assert json.loads(says("dead", "box", "--json")) == []
    assert says("dead", "box", "--resend") == "0 dead letters re-sent\n"


def test_letters_are_discarded(box: upcall.Proc, notes: Notes) -> None:
    assert says("dead", "box", "2", "--discard") == "1 dead letter discarded\n"
    assert ids() == [1, 3, 4]
    assert json.loads(says("dead", "box", "--discard", "--json")) == {"discarded": 3}
    assert ids() == []
    assert notes.read() == []


def test_letters_of_a_stopped_process(box: upcall.Proc, notes: Notes) -> None:
    box.stop(timeout=LONG_S)
    assert len(rows(says("dead", "box"))) == 4
    assert says("clean") == "kept box: 4 dead letters stay: upcall dead box shows them, or --discard them\n"
    assert says("dead", "box", "1", "--resend") == "1 dead letter re-sent\n"
    assert "kept box: 1 events wait: start it to handle them, 3 dead letters stay" in says("clean")
    assert says("clean", "--discard") == "removed box: discarded, 4 events lost\n"


def test_ps_shows_dead_letters(box: upcall.Proc) -> None:
    text = says("ps")
    assert "box: 4 dead letters (upcall dead box)" in text
    assert text.splitlines()[1].split() == [
        "name", "state", "pid", "online", "waiting", "dead", "handled", "errors", "MiB",
    ]  # fmt: skip
    (process,) = json.loads(says("ps", "--json"))
    assert (process["dead"], process["waiting"]) == (4, 0)
    assert [(queue["name"], queue["dead"], queue["depth"]) for queue in process["queues"]] == [
        ("orders", 3, 0), ("others", 0, 0),
    ]  # fmt: skip
    assert "4 dead letters (upcall dead box)\n" in says("ps", "box")
    (box_of,) = [one for one in json.loads(says("dump", "box", "--json"))["mailboxes"] if one["of"] == "dead letters"]
    assert box_of["slots"] == {"READY": 4}
    assert says("dead", "box", "--discard") == "4 dead letters discarded\n"
    assert "dead" not in says("ps")


CANNOT_BE: dict[tuple[str, ...], tuple[int, str]] = {
    ("nothing",): (1, "no process 'nothing'"),
    ("box", "5"): (1, "no dead letter 5 in 'box': upcall dead lists them"),
    ("box", "1", "7", "9", "--resend"): (1, "no dead letter 7, 9 in 'box'"),
    ("box", "4", "--queue", "orders"): (1, "no dead letter 4 in 'box', queue 'orders'"),
    ("box", "--queue", "nothing"): (1, "has no queue 'nothing'"),
    ("box", "--resend", "--discard"): (2, "--resend and --discard exclude each other"),
    ("box", "first"): (2, "'first' is not a valid integer"),
    ("box", "0"): (2, "0 is not in the range x>=1"),
    (): (2, "Missing argument 'NAME'"),
}


def test_what_cannot_be_is_said(box: upcall.Proc) -> None:
    """All in one: the letters take longer to die than all these commands."""
    for arguments, (code, what) in CANNOT_BE.items():
        done = run("dead", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), arguments
        assert what in done.stderr, arguments
    assert ids() == [1, 2, 3, 4]
