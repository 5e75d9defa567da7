"""The commands: `upcall run`, `stop`, `restart`, `scale`, `send`, `ps`, `dead`, `dump`, `clean`, `demo`, `storm`, `bench`,
`check`.

Each command is a small module that imports what it needs when it is called, so that `upcall --help` is quick. Errors
that a user can do something about become one line and exit code 1; wrong usage is click's, exit code 2; anything else
is a bug, and shows its traceback.
"""

from __future__ import annotations

import errno
from typing import Any

import click

from .. import __version__
from ..errors import UpcallError
from .bench import bench
from .check import check
from .clean import clean
from .dead import dead
from .demo import demo
from .dump import dump
from .ps import ps
from .restart import restart
from .run import run
from .scale import scale
from .send import send
from .stop import stop
from .storm import storm

__all__ = ["main"]


class Commands(click.Group):
    """A group that turns the errors of this package, and of the system, into one clear line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. ClickException, exit code 1, for what a user can mend; exit code 130 after Ctrl-C."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly: the reader of our output has seen enough
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            raise SystemExit(130) from None
        except (UpcallError, ValueError, OSError) as error:
            raise click.ClickException(one_line(error)) from error


def one_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
    return " ".join(text.split()) or type(error).__name__


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="UPCALL_DIR names the folder of segments (default: one per user on the shared-memory file system).",
)
@click.version_option(__version__, prog_name="upcall")
def main() -> None:
    """Lossless event delivery between Python processes.

    \b
    Examples:
      upcall run ingest:proc
      upcall send ingest orders order.created --payload '{"id": 1}'
      upcall ps
      upcall demo
    """


for command in (run, stop, restart, scale, send, ps, dead, dump, clean, demo, storm, bench, check):
    main.add_command(command)
