"""Which life runs: are the compiled modules there, and were they compiled from the sources that lie beside them?

The sources ship beside the modules compiled from them (the interpreted life reads them), so a compiled module can be
missing, or older than its source, and Python would not say so: it would run the source, or the old code. The build
therefore stores a hash of all these sources in `machine.built`, and `import upcall` compares.

This code assumes: `setup.py` loads this file by its path, before anything is built; so it imports the standard library
only, and `compiled_modules` and `source_hash` here are the one place that says what is compiled and what is hashed. It
runs at every `import upcall`, so it avoids slow imports (`hashlib` loads OpenSSL, `pathlib` and `inspect` are big).
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES

TYPE_CHECKING = False  # typing's, without importing typing
if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = os.path.dirname(os.path.abspath(__file__))
FOLDERS = ("machine", "kern", "parlib", "front", "bench", "check")
"""The folders that hold compiled modules."""

INTERPRETED_ONLY = ("machine/door", "kern/const")
"""Have a `.pxd` of their own, but no compiled module: the interpreted door, and the reader of the numbers."""


class CompiledLifeError(ImportError):
    """A compiled module is missing or stale. The message ends with the command that mends it."""


def _listing(root: str) -> list[str]:
    """The files in `FOLDERS` below `root`, as `kern/ucq.py`, sorted. One look serves a whole check."""
    found = []
    for part in FOLDERS:
        folder = f"{root}/{part}"
        if os.path.isdir(folder):
            found += [f"{part}/{name}" for name in os.listdir(folder)]
    return sorted(found)


def compiled_modules(root: str = ROOT, listing: Sequence[str] | None = None) -> list[str]:
    """The modules that are compiled, as `kern/ucq`: each `X.py` with an `X.pxd` beside it, but `INTERPRETED_ONLY`."""
    files = set(_listing(root) if listing is None else listing)
    stems = sorted(file[:-3] for file in files if file.endswith(".py"))
    return [stem for stem in stems if f"{stem}.pxd" in files and stem not in INTERPRETED_ONLY]


def hashed_sources(root: str = ROOT, listing: Sequence[str] | None = None) -> list[str]:
    """Every file that decides what the compiled modules do: their sources, all declarations, the C header."""
    files = _listing(root) if listing is None else listing
    declarations = [file for file in files if file.endswith((".pxd", ".h"))]
    return sorted([f"{stem}.py" for stem in compiled_modules(root, files)] + declarations)


def source_hash(root: str = ROOT, listing: Sequence[str] | None = None) -> str:
    """The hash of `hashed_sources`, names and contents, as 32 hexadecimal digits."""
    try:
        from _blake2 import blake2b  # what hashlib hands out, without the 3 ms that importing hashlib takes
    except ImportError:
        from hashlib import blake2b
    total = blake2b(digest_size=16)
    for path in hashed_sources(root, listing):
        with open(f"{root}/{path}", "rb", buffering=0) as file:
            content = file.read()
        total.update(b"%s %d\n%s" % (path.encode(), len(content), content))
    return str(total.hexdigest())


def check_compiled() -> None:
    """Returns if this package's compiled modules are all there and belong to the sources beside them.

    Raises `CompiledLifeError`, with the command that mends it, if one is missing for this Python, or if the sources
    were changed, added to or taken from since. About 1 ms.
    """
    listing = _listing(ROOT)
    files = set(listing)
    stems = compiled_modules(ROOT, listing)
    missing = [stem for stem in stems if not any(stem + suffix in files for suffix in EXTENSION_SUFFIXES)]
    if missing:
        names = ", ".join("upcall." + stem.replace("/", ".") for stem in missing)
        raise CompiledLifeError(f"not compiled for this Python: {names}, in {ROOT}{_mend()}")

    from .machine.built import source_hash as built_from

    built, now = built_from(), source_hash(ROOT, listing)
    if built != now:
        raise CompiledLifeError(
            f"the compiled modules in {ROOT} are stale: made from sources {built}, beside them are {now}{_mend()}"
        )


def _mend() -> str:
    """The end of an error message: the command that compiles again, for a checkout or for an installed package."""
    from shlex import join

    checkout = os.path.dirname(os.path.dirname(ROOT))
    pip = [sys.executable, "-m", "pip", "install"]
    if os.path.isfile(os.path.join(checkout, "pyproject.toml")):
        return f"; compile again with: {join([*pip, '-e', checkout])}"
    return f"; install again with: {join([*pip, '--force-reinstall', '--no-deps', _installed_from()])}"


def _installed_from() -> str:
    """The folder that this package was installed from, as pip recorded it; else `.`, to be run in a clone."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        origin = distribution("upcall").read_text("direct_url.json")
    except PackageNotFoundError:
        return "."
    url = urlsplit(json.loads(origin)["url"]) if origin else None
    return unquote(url.path) if url and url.scheme == "file" and os.path.isdir(unquote(url.path)) else "."
