"""`upcall.Executor`: a pool of worker processes behind `concurrent.futures`, which survives its workers."""

from __future__ import annotations

from .executor import Executor
from .pool import RemoteTraceback

__all__ = ["Executor", "RemoteTraceback"]
