"""What a storm prints: progress on standard error, the verdict on standard output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

from ..cli.show import console, table
from . import ledger as books
from .killer import DEEDS, ROLES

if TYPE_CHECKING:
    from .check import Verdict
    from .settle import Settling
    from .storm import Storm


class Screen:
    """Where a storm talks to its user; `quiet`: not at all, but for the result."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = console(stderr=True)

    def say(self, line: str) -> None:
        """A line of what is going on."""
        if not self.quiet:
            self.console.print(line)

    @contextmanager
    def progress(self, seconds: float) -> Iterator[Callable[[float, dict[str, int]], None]]:
        """A bar of the time, and figures; gives the function that moves it. No thread of its own: the storm forks."""
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
            BarColumn(),
            TextColumn("{task.description}"),
        )
        shown = not self.quiet and self.console.is_terminal
        with Progress(*columns, console=self.console, disable=not shown, auto_refresh=False) as bars:
            bar = bars.add_task("", total=seconds)

            def move(now: float, figures: dict[str, int]) -> None:
                text = ", ".join(f"{value:,} {name}" for name, value in figures.items())
                bars.update(bar, completed=now, description=text, refresh=True)

            yield move

    @contextmanager
    def bar(self, what: str, steps: int) -> Iterator[Callable[[], None]]:
        """A bar of steps; gives the function that makes one."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        shown = not self.quiet and self.console.is_terminal
        with Progress(*columns, console=self.console, disable=not shown, auto_refresh=False) as bars:
            bar = bars.add_task(what, total=steps)
            yield lambda: bars.update(bar, advance=1, refresh=True)

    def peers(self, rows: list[dict[str, Any]], problems: list[str]) -> None:
        """The table of the other systems, for people."""
        shown = []
        for row in rows:
            lost = row["lost_per_kill"]
            shown.append(
                (row["name"], row["how"], row["missing"])
                if row["missing"]
                else (
                    row["name"], row["how"], f"{row['hung']} of {row['tries']}", f"{lost['mean']:.1f}" if lost else None,
                    lost["most"] if lost else None, row["twice"],
                )
            )  # fmt: skip
        columns = ("", "how", "hung", "#lost per kill", "#at most", "#handled twice")
        out = console()
        out.print(table("one participant killed in each try", columns, shown))
        for problem in problems:
            out.print(f"WRONG: {problem}", markup=False)

    def results(self, result: dict[str, Any]) -> None:
        """The whole verdict for people."""
        out = console()
        deeds = dict.fromkeys(DEEDS)
        rows = [
            (role, *(hits[deed] for deed in deeds), result["restarts"].get(role))
            for role, hits in result["hits"].items()
        ]
        columns = ("", *(f"#{deed}" for deed in deeds), "#started anew")
        out.print(table(f"{result['seconds']:.0f} s, seed {result['seed']}", columns, rows))
        figures = [(what, f"{result[name]:,}") for name, what in FIGURES.items()]
        if silence := result["ms_to_the_next_handled_event"]:
            figures += [
                ("ms from a hit until the next is handled, median", f"{silence['median']:.1f}"),
                ("ms from a hit until the next is handled, at most", f"{silence['most']:.1f}"),
            ]
        out.print(table("", ("events", "#"), figures))
        for problem in result["problems"]:
            out.print(f"WRONG: {problem}", markup=False)
        if result["problems"]:
            out.print(f"kept: {result['kept']} (the segment: UPCALL_DIR={result['kept']} upcall dump {result['name']})")
        else:
            out.print(
                "0 lost, 0 left over, 0 hung: all events whose send returned were handled in order, or are dead letters"
            )


FIGURES = {
    "sent": "sent: their send returned",
    "unsure": "their sender was killed in send",
    "handled": "handled",
    "redelivered": "taken by a vcore that was killed, and delivered again",
    "duplicates": "of these handled again",
    "given_up": "dead letters",
    "lost": "lost",
}
"""Of the verdict, what people want to see when nothing is wrong."""


def result(storm: Storm, settling: Settling, verdict: Verdict, seconds: float, hung: str | None) -> dict[str, Any]:
    """The whole verdict for programs."""
    hits = {
        role: {deed: storm.killer.deeds[role, deed] for deed in dict.fromkeys(DEEDS)}
        for role in ROLES
        if role != "supervisor" or storm.plan.supervisor
    }
    silences = sorted(silence / 1e6 for silence in storm.ledger.silences())
    return {
        "name": storm.name,
        "seed": storm.plan.seed,
        "senders": storm.plan.senders,
        "vcores": storm.plan.vcores,
        "rate": storm.plan.rate,
        "seconds": seconds,
        "stopped_early": storm.stopped_early,
        "hits": hits,
        "missed": storm.killer.missed,
        "restarts": {
            "sender": sum(seat.restarts for seat in storm.company.senders),
            "vcore": settling.restarts,
            "supervisor": storm.company.supervisor.restarts,
        },
        **{
            name: getattr(verdict, name)
            for name in (*FIGURES, "twice", "disorder", "damaged", "never_sent", "bits_lost")
        },
        "bits_sent": sum(storm.ledger.words[storm.ledger.seat(s) + books.ANSWERED] for s in range(storm.ledger.seats)),
        "redeliveries": storm.ledger.total(books.AGAIN),
        "ms_to_the_next_handled_event": ({"median": median(silences), "most": silences[-1]} if silences else None),
        "hung": hung,
        "problems": verdict.problems,
    }
