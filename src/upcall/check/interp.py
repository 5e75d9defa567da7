"""The interpreted life: the protocol's own files imported as ordinary Python, under a second package name.

`load()` gives a package whose modules `machine.*`, `kern.*` and `parlib.*` are read from the same `.py` files that were
compiled, never from the compiled modules beside them. Relative imports in those files lead to modules of the same load,
so that each load stands alone: its own classes, its own module globals, and its own `machine.door` underneath.

This code assumes that protocol modules use only relative imports (a test asserts it), and that `cython` is installed:
in this life `import cython` finds Cython's own shadow module, where `cython.compiled` is False. Nothing else of upcall
needs it at run time.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from types import CodeType, ModuleType

from .. import _life

PACKAGES = ("machine", "kern", "parlib")
"""The layers that are protocol code, in the order of their imports."""

DOOR = "machine.door"


Transform = Callable[[ast.Module, str], CodeType]
"""What compiles a module's tree: (tree, filename) -> code."""


class _Transformed(SourceFileLoader):
    """Reads a source file and compiles it by `transform`; no bytecode is kept or used."""

    transform: Transform

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return type(self).transform(ast.parse(self.get_data(path), path), path)


class _Finder(MetaPathFinder):
    """Finds the modules of one load, in the source files only."""

    def __init__(self, name: str, root: str, transform: Transform | None) -> None:
        self.name = name
        self.root = root
        self.loader: type[SourceFileLoader] = SourceFileLoader
        if transform is not None:
            self.loader = type("_Loader", (_Transformed,), {"transform": staticmethod(transform)})

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, inner = fullname.partition(".")
        if package != self.name or inner.partition(".")[0] not in PACKAGES:
            return None
        stem = os.path.join(self.root, *inner.split("."))
        folder = os.path.isdir(stem)
        file = os.path.join(stem, "__init__.py") if folder else f"{stem}.py"
        if not os.path.isfile(file):
            return None
        # No search path of its own: whatever this finder does not find, nobody else may find in these folders.
        return spec_from_file_location(
            fullname, file, loader=self.loader(fullname, file), submodule_search_locations=[] if folder else None
        )


def protocol_modules() -> list[str]:
    """The protocol's modules, as `kern.ucq`, lower layers first; the packages themselves and the door are left out."""
    found = []
    for package in PACKAGES:
        names = sorted(os.listdir(os.path.join(_life.ROOT, package)))
        found += [f"{package}.{name[:-3]}" for name in names if name.endswith(".py") and name != "__init__.py"]
    return [module for module in found if module != DOOR]


def load(door: ModuleType | None = None, name: str = "upcall_interp", transform: Transform | None = None) -> ModuleType:
    """Loads the protocol interpreted and returns it as a package: `load().kern.ucq` is a module.

    `door` is the module to use as `machine.door`, under every fence and access; by default the shim `machine/door.py`.
    `transform` compiles each module's tree (default: as it is).
    Loads under different names are independent of each other. The package stays importable until `unload(name)`.

    Raises ValueError if the name is not an identifier or is taken, ImportError if Cython is not installed.
    """
    if not name.isidentifier():
        raise ValueError(f"name {name!r} of an interpreted life is not an identifier")
    if name in sys.modules:
        raise ValueError(f"{name!r} is loaded already (unload({name!r}) first, or give another name)")
    try:
        import cython  # noqa: F401
    except ImportError:
        raise ImportError(
            f"the interpreted life needs Cython's module `cython`: {sys.executable} -m pip install Cython"
        ) from None

    sys.meta_path.insert(0, _Finder(name, _life.ROOT, transform))
    try:
        root = module_from_spec(ModuleSpec(name, None, is_package=True))
        root.__doc__ = "The protocol of upcall, interpreted."
        sys.modules[name] = root
        machine = importlib.import_module(f"{name}.machine")
        if door is None:
            importlib.import_module(f"{name}.{DOOR}")
        else:
            machine.door = door  # type: ignore[attr-defined]
            sys.modules[f"{name}.{DOOR}"] = door
        for module in protocol_modules():
            importlib.import_module(f"{name}.{module}")
    except BaseException:
        unload(name)
        raise
    return root


def unload(name: str = "upcall_interp") -> None:
    """Forgets the load of that name: its modules can be imported no more. Objects made from it live on.

    A name that `load` did not load is left alone.
    """
    ours = [finder for finder in sys.meta_path if isinstance(finder, _Finder) and finder.name == name]
    if not ours:
        return
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in ours]
    for module in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
        del sys.modules[module]
