"""Programs whose verdicts are known: litmus tests, and classic algorithms with and without what they need."""

from . import deque, litmus, locks, seqlock, stack
from .known import KNOWN, MODELS, Known, known_jobs

__all__ = ["KNOWN", "MODELS", "Known", "deque", "known_jobs", "litmus", "locks", "seqlock", "stack"]
