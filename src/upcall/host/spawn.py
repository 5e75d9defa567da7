"""Workers that start with a fresh interpreter: the program's module is imported anew, and its `Proc` found there.

A spawned worker runs `python -m upcall.host.spawn`, with the module's name (or the path of a program that was run as a
script), the process's name and the vcore id. What is not created by importing the module cannot be had there: a handler
that is defined inside a function is refused before anything starts. It ends as a forked one does: what is printed is
flushed, and no at-exit handler runs.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys

from .definition import Definition, Program


def check_importable(proc: Program) -> None:
    """ValueError naming the handler that a spawned worker could not have."""
    definition = proc.definition
    handlers: list[tuple[str, object]] = [
        (f"handler of {item.type!r}", item.handler) for item in definition.registrations
    ]
    handlers += [(f"handler of queue {q.name!r}", q.handler) for q in definition.queues.values() if q.handler]
    handlers += [("main", function) for function in definition.mains]
    for what, function in handlers:
        name = getattr(function, "__qualname__", repr(function))
        if "<locals>" in name:
            raise ValueError(
                f"{what} of {proc.name!r}, {name}, is defined inside a function: a spawned worker cannot import it; "
                "define it at the top of a module, or use start_method='fork'"
            )


def home(proc: Program) -> str:
    """Where a worker finds this `Proc`: a module's name, or a script's path. ValueError if it is in neither."""
    for name, module in list(sys.modules.items()):
        if any(value is proc for value in list(vars(module).values()) if type(value) is type(proc)):
            if name in ("__main__", "__mp_main__"):
                path = getattr(module, "__file__", None)
                spec = getattr(module, "__spec__", None)
                if spec is not None and spec.name not in ("__main__", "__mp_main__"):
                    return str(spec.name).removesuffix(".__main__")
                if path:
                    return os.path.abspath(str(path))
                continue
            return name
    raise ValueError(
        f"process {proc.name!r} is not a global of any module, so a spawned worker cannot import it: "
        "assign it to a name at the top of a module, or use start_method='fork'"
    )


def spawn(proc: Program, vcoreid: int) -> int:
    """Starts a worker process; returns its pid."""
    arguments = json.dumps([home(proc), proc.name, vcoreid, os.getpid(), sys.path, sys.argv])
    command = [sys.executable, "-m", "upcall.host.spawn", arguments]
    return os.posix_spawn(sys.executable, command, {**os.environ, "UPCALL_SPAWNED": "1"})


def _find(where: str, name: str) -> Program:
    if where.endswith(".py") or os.sep in where:
        found = runpy.run_path(where, run_name="__mp_main__")
    else:
        found = vars(importlib.import_module(where))
    for value in found.values():
        if isinstance(getattr(value, "definition", None), Definition) and value.name == name:
            program: Program = value
            return program
    raise ValueError(f"importing {where} made no Proc named {name!r}")


def main() -> int:
    """A spawned worker's life."""
    from .worker import worker_process

    where, name, vcoreid, parent, path, arguments = json.loads(sys.argv[1])
    sys.path[:] = path
    sys.argv[:] = arguments  # what the program reads while it is imported is what its first process read
    return worker_process(_find(where, name), name, vcoreid, parent)


if __name__ == "__main__":
    from .forks import run_child

    run_child(main)
