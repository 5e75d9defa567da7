"""How explorations stand, while they run: on a terminal, in place; elsewhere only a line for each that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .show import console, table

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType

    from ..check.runner import Result
    from ..check.running import Progress


class Display:
    """Shows how a run stands (a context manager). On stderr, so that results can go elsewhere."""

    def __init__(self) -> None:
        from rich.live import Live

        self.console = console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None

    def __enter__(self) -> Display:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def ended(self, number: int, total: int, result: Result) -> None:
        """One has ended."""
        verdict = result.verdict
        self.line(
            f"[{number}/{total}] {result.job.scenario} ({result.job.model}): {result.said}, {verdict.states} states, "
            f"{verdict.seconds:.1f} s"
        )

    def line(self, line: str) -> None:
        """A line that stays."""
        if self.live is not None:
            self.console.print(line, markup=False, soft_wrap=True)
        else:
            click.echo(line, err=True)

    def stands(self, progress: Progress) -> None:
        """Shows it anew."""
        if self.live is not None:
            self.live.update(standing(progress), refresh=True)


def standing(progress: Progress) -> RenderableType:
    """What runs, a row each, and the whole run in a line."""
    from rich.console import Group
    from rich.text import Text

    rows = [
        (
            each.job.scenario,
            each.job.model,
            each.states,
            f"{each.speed:,.0f}",
            "random runs" if each.job.runs else "every run" if each.bound is None else f"{each.bound} preemption(s)",
            f"{each.seconds:.0f} of {each.limit:.0f}",
        )
        for each in progress.running
    ]
    columns = ("explores", "model", "#states", "#states/s", "bound", "#s, at most")
    return Group(table("", columns, rows), Text(whole(progress)))


def whole(progress: Progress) -> str:
    """The whole run in a line."""
    left = "" if progress.left is None else f", about {clock(progress.left)} left (an estimate)"
    return f"{progress.done} of {progress.total} done in {clock(progress.seconds)}{left}"


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
