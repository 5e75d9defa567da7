"""Exhibits: algorithms of others, or common patterns, as they are; what breaks in them is known, and shown."""

from __future__ import annotations

from ...errors import UpcallError
from . import notified_flag
from .seed import scenarios
from .showings import SHOWINGS, Showing

EXHIBITS = {"seed": scenarios.__doc__ or "", "notified-flag": notified_flag.__doc__ or ""}
"""Their names, and what they are."""

__all__ = ["EXHIBITS", "SHOWINGS", "Showing", "showings"]


def showings(exhibit: str) -> list[Showing]:
    """What an exhibit shows. UpcallError for one that there is not."""
    if exhibit not in EXHIBITS:
        raise UpcallError(f"no exhibit {exhibit!r}: there are {', '.join(EXHIBITS)}")
    return [showing for showing in SHOWINGS.values() if showing.exhibit == exhibit]
