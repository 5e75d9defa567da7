"""Programs whose verdicts are known: litmus tests, and classic algorithms with and without what they need."""

from . import litmus
from .known import KNOWN, Known, known_jobs

__all__ = ["KNOWN", "Known", "known_jobs", "litmus"]
