"""`upcall run`: a process in the foreground, from its definition in a module."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..proc import Proc


def _split(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, str]:
    module, colon, attribute = value.partition(":")
    if not (module and colon and attribute) or not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise click.BadParameter(f"{value!r}: write it as MODULE:PROC, for example ingest:proc")
    return module, attribute


@click.command(short_help="Run a process in the foreground.")
@click.argument("target", metavar="MODULE:PROC", callback=_split)
def run(target: tuple[str, str]) -> None:
    """Run the process that MODULE defines as PROC, in the foreground.

    MODULE is imported with the current folder first. Ctrl-C or SIGTERM: finish what is in hand, then drain or leave
    what waits, as the definition's `stop` says; a second one ends it at once.

    \b
    Examples:
      upcall run ingest:proc
      upcall run shop.orders:proc
    """
    proc = load(*target)
    if sys.stderr.isatty():
        count = proc.definition.vcores
        click.echo(f"starting {proc.name}: {count} vcore{'s' if count > 1 else ''}; Ctrl-C stops it", err=True)
    proc.run()


def load(module: str, attribute: str) -> Proc:
    """The definition. ClickException if there is none, or if the module cannot be imported."""
    from ..proc import Proc

    if sys.path[0] not in ("", os.getcwd()):
        sys.path.insert(0, os.getcwd())
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # One of the module's own imports may be what is missing: then its name says so.
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            raise click.ClickException(f"no module {error.name!r} in {os.getcwd()} or on sys.path") from error
        raise click.ClickException(f"importing {module!r} failed: {error}") from error
    except Exception as error:
        traceback.print_exc()
        raise click.ClickException(f"importing {module!r} failed: {type(error).__name__}: {error}") from error
    found = getattr(loaded, attribute, None)
    if isinstance(found, Proc):
        return found
    there = ", ".join(sorted(name for name, value in vars(loaded).items() if isinstance(value, Proc))) or "none"
    what = f"{attribute!r} of type {type(found).__name__}" if hasattr(loaded, attribute) else f"no {attribute!r}"
    raise click.ClickException(f"module {module!r} has {what}: name an upcall.Proc (there: {there})")
