"""`upcall bench`, which lives beside its measurements."""

from __future__ import annotations

from ..bench.command import bench

__all__ = ["bench"]
