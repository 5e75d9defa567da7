"""The checker: what can happen between actors on shared memory, all of it.

`scenario`, `Scenario`, `Word` and `State` are for scenarios of one's own: see docs/checking.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plan import Scenario, Word, scenario
    from .verdict import State

__all__ = ["Scenario", "State", "Word", "scenario"]


def __getattr__(name: str) -> Any:
    """Loads the names above when they are first used: the interpreted life needs no greenlet."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from . import plan as module
    except ImportError as error:
        raise ImportError(f"the checker needs greenlet and Cython ({error}): pip install 'upcall[check]'") from None
    if name == "State":
        from .verdict import State

        return State
    found = getattr(module, name)
    globals()[name] = found
    return found
