"""`upcall demo`: counts the words of real text, every line an event, and checks the result.

`text` the input and the plain count, `counting` the process that counts, `sender` a program that feeds it, `peers` the
same job with multiprocessing, `show` what is printed. Here: one run of it all.
"""

from __future__ import annotations

from .job import run

__all__ = ["run"]
