"""What the demo prints: progress on standard error, results on standard output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..cli.show import console, table

if TYPE_CHECKING:
    from .job import Delivery
    from .peers import Timing


class Screen:
    """Where the demo talks to its user; `quiet`: not at all, but for the result."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = console(stderr=True)

    def say(self, line: str) -> None:
        """A line of what is going on."""
        if not self.quiet:
            self.console.print(line)

    @contextmanager
    def progress(self, events: int) -> Iterator[Callable[[int, int], None]]:
        """Two bars, events sent and handled; gives the function that moves them."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        shown = not self.quiet and self.console.is_terminal
        with Progress(*columns, console=self.console, disable=not shown) as bars:
            sent, handled = (bars.add_task(what, total=events) for what in ("sent", "handled"))

            def move(now_sent: int, now_handled: int) -> None:
                bars.update(sent, completed=now_sent)
                bars.update(handled, completed=now_handled)

            yield move

    def results(self, result: dict[str, Any]) -> None:
        """The whole result for people."""
        out = console()
        equal = "equal to a plain count" if result["equal"] else "NOT EQUAL to a plain count: this is a bug"
        out.print(f"{result['events']:,} events, {result['words']:,} words: the counts are {equal}")
        rate, senders, vcores = result["events_per_s"], result["senders"], len(result["vcores"])
        wakeups, syscalls = (round(1e6 * result[f"{what}_per_event"]) for what in ("wakeups", "syscalls"))
        costs = f"{wakeups:,} wake-ups and {syscalls:,} system calls per million events"
        killed = "" if result["kills"] is None else f"and workers were killed {result['kills']:,} times meanwhile"
        out.print(f"{rate:,.0f} events/s from {senders} senders to {vcores} vcores, {killed or costs}")
        shares = [(v["id"], v["pid"], f"{v['events']:,}", f"{v['share']:.1%}") for v in result["vcores"]]
        out.print(table("", ("#vcore", "#pid", "#events", "#share"), shares))
        if killed:
            figures = [
                ("workers killed", result["kills"]),
                ("lines in their hands, delivered again", result["redelivered"]),
                ("of these written before, and counted once", result["again"]),
            ]
            out.print(table("", ("", "#"), figures))
        mine = (
            "upcall, one event per line",
            result["events"],
            result["seconds"],
            result["events_per_s"],
            result["equal"],
        )
        rows = [
            mine,
            *((p["what"], p["events"], p["seconds"], p["events_per_s"], p["equal"]) for p in result["others"]),
        ]
        shown = [
            (what, f"{events:,}", f"{seconds:.2f}", f"{rate:,.0f}", f"{rate / result['events_per_s']:.2f}x", equal)
            for what, events, seconds, rate, equal in rows
        ]
        columns = ("the same job with", "#lines", "#seconds", "#lines/s", "#to upcall", "equal")
        out.print(table("", columns, shown))
        if any(events < result["events"] for _, events, *_ in rows):
            out.print("those with fewer lines got the first of them only: all would take long")


def result(
    found: Delivery, others: list[Timing], *, files: int, senders: int, words: int, equal: bool
) -> dict[str, Any]:
    """The whole result for programs."""
    vcores = [
        {"id": vcore.id, "pid": vcore.pid, "events": events, "share": events / max(1, found.sent)}
        for vcore, events in zip(found.after.vcores, found.shares(), strict=True)
    ]
    return {
        "files": files,
        "events": found.sent,
        "words": words,
        "equal": equal,
        "seconds": found.seconds,
        "events_per_s": found.sent / found.seconds,
        "senders": senders,
        "kills": found.kills,
        "redelivered": found.redelivered,
        "again": found.again,
        "vcores": vcores,
        "wakeups_per_event": found.per_event("wakeups"),
        "syscalls_per_event": found.per_event("syscalls"),
        "others": [
            {"what": t.what, "events": t.events, "seconds": t.seconds, "events_per_s": t.events_per_s, "equal": t.equal}
            for t in others
        ],
    }
