"""The one-line functions of `layout.pxd`, for everyone who is not compiled: the interpreted life, the host layer, tests.

A call from one compiled module into another costs more than the sum that a function like `page_at` is for. So these stand
as `cdef inline` in the `.pxd`, where the C compiler puts them into their callers, and Python reads the same lines: there
is one text of each, as of the numbers in `const.pxd`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from .const import NUMBERS

_FUNCTION = re.compile(r"^cdef inline \w+ (\w+)\((.*)\) noexcept nogil:\n((?:    .*\n)+)", re.MULTILINE)


def _read() -> dict[str, Callable[..., int]]:
    path = Path(__file__).with_name("layout.pxd")
    text = path.read_text(encoding="utf-8")
    found: dict[str, Callable[..., int]] = {}
    for function in _FUNCTION.finditer(text):
        name, arguments, body = function.groups()
        plain = ", ".join(argument.split()[-1] for argument in arguments.split(","))
        above = "\n" * text.count("\n", 0, function.start())  # so that a traceback shows the line of the .pxd
        exec(compile(f"{above}def {name}({plain}):\n{body}", str(path), "exec"), dict(NUMBERS), found)
    return found


FUNCTIONS = _read()
"""Every function by its name."""


def __getattr__(name: str) -> Callable[..., int]:
    try:
        return FUNCTIONS[name]
    except KeyError:
        raise AttributeError(f"neither layout.py nor layout.pxd has {name!r}") from None
