"""A process that ends with its parent, however that ends."""

from __future__ import annotations

import ctypes

LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def end_with_parent(signum: int) -> None:
    """The calling process gets the signal when its parent dies, also while it is stopped."""
    LIBC.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
