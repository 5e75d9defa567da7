"""The compiled life is compiled and fresh, or says how to mend it; the interpreted life is interpreted."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

from upcall import _life
from upcall.check import interp

PACKAGE = Path(_life.ROOT)


# ---- compiled ------------------------------------------------------------------------------------------------------


def test_every_declared_module_is_compiled() -> None:
    stems = _life.compiled_modules()
    assert {"machine/built", "kern/layout", "kern/ucq"} <= set(stems)
    for stem in stems:
        file = importlib.import_module("upcall." + stem.replace("/", ".")).__file__
        assert file is not None
        assert file.endswith(tuple(EXTENSION_SUFFIXES)), f"{stem} runs from {file}"


def test_compiled_modules_are_fresh() -> None:
    from upcall.machine import built

    assert built.source_hash() == _life.source_hash()
    _life.check_compiled()


def test_compiled_life_does_not_need_cython() -> None:
    modules = ", ".join("upcall." + stem.replace("/", ".") for stem in _life.compiled_modules())
    done = _python(f"import sys, upcall, {modules}; print({{'cython', 'Cython'}} & set(sys.modules))")
    assert (done.stdout, done.stderr) == ("set()\n", "")


def _python(code: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a new Python, with `first` before everything else in its path."""
    code = f"import sys; sys.path.insert(0, {str(first)!r}); {code}" if first else code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd="/")


class Tree:
    """A copy of the package, made of symbolic links: to `change` a file replaces its link."""

    def __init__(self, parent: Path) -> None:
        self.path = parent / "upcall"
        parent.mkdir(exist_ok=True)
        shutil.copytree(PACKAGE, self.path, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))

    def change(self, name: str, content: str) -> None:
        file = self.path / name
        file.unlink(missing_ok=True)
        file.write_text(content)

    def append(self, name: str) -> None:
        self.change(name, (PACKAGE / name).read_text() + "\n")

    def check(self) -> subprocess.CompletedProcess[str]:
        return _python("from upcall import _life; _life.check_compiled(); print(_life.ROOT)", self.path.parent)

    def complaint(self) -> str:
        """The last line that `import upcall` or the check says, which must be an error of the check."""
        done = self.check()
        assert done.returncode == 1, done.stdout
        last = done.stderr.splitlines()[-1]
        assert last.startswith("upcall._life.CompiledLifeError: "), done.stderr
        return last


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A copy where a package lies that is installed."""
    return Tree(tmp_path / "site-packages")


def test_a_true_copy_is_fresh(tree: Tree) -> None:
    done = tree.check()
    assert done.stdout == f"{tree.path}\n", done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "machine/upcall_machine.h",
        "machine/door.pxd",
        "machine/built.py",
        "kern/const.pxd",
        "kern/ucq.py",
        "kern/ucq.pxd",
    ],
)
def test_a_touched_source_is_stale(tree: Tree, name: str) -> None:
    tree.append(name)
    assert "are stale: made from sources" in tree.complaint()


def test_an_added_source_is_stale(tree: Tree) -> None:
    tree.change("kern/added.pxd", "")
    assert "are stale" in tree.complaint()


def test_a_removed_source_is_stale(tree: Tree) -> None:
    (tree.path / "kern/ucq.pxd").unlink()
    assert "are stale" in tree.complaint()


@pytest.mark.parametrize("name", ["machine/door.py", "kern/const.py"])
def test_what_is_never_compiled_cannot_be_stale(tree: Tree, name: str) -> None:
    tree.append(name)
    assert tree.check().returncode == 0


@pytest.mark.parametrize("stem", ["kern/ucq", "machine/built"])
def test_a_missing_compiled_module_is_named(tree: Tree, stem: str) -> None:
    for suffix in EXTENSION_SUFFIXES:
        (tree.path / f"{stem}{suffix}").unlink(missing_ok=True)
    assert f"not compiled for this Python: upcall.{stem.replace('/', '.')}, in {tree.path}" in tree.complaint()


def test_a_module_compiled_for_another_python_is_missing(tree: Tree) -> None:
    for suffix in EXTENSION_SUFFIXES:
        file = tree.path / f"kern/ucq{suffix}"
        if file.is_symlink():
            file.rename(tree.path / "kern/ucq.cpython-27-x86_64-linux-gnu.so")
    assert "not compiled for this Python: upcall.kern.ucq, in" in tree.complaint()


def test_the_error_of_an_installed_package_says_install(tree: Tree) -> None:
    tree.append("kern/ucq.py")
    assert f"; install again with: {sys.executable} -m pip install --force-reinstall --no-deps " in tree.complaint()


def test_the_error_of_a_checkout_says_editable_install(tmp_path: Path) -> None:
    checkout = tmp_path / "my clone"
    checkout.mkdir()
    (checkout / "pyproject.toml").touch()
    tree = Tree(checkout / "src")
    tree.append("kern/ucq.py")
    assert tree.complaint().endswith(f"; compile again with: {sys.executable} -m pip install -e '{checkout}'")


# ---- interpreted ---------------------------------------------------------------------------------------------------


@pytest.fixture
def load() -> Iterator[str]:
    """A name for a load, forgotten after the test."""
    yield "upcall_interp_trial"
    interp.unload("upcall_interp_trial")


def test_interpreted_modules_are_source_files(load: str) -> None:
    root = interp.load(name=load)
    for name in interp.protocol_modules():
        module = importlib.import_module(f"{load}.{name}")
        assert module.__file__ == str(PACKAGE / f"{name.replace('.', '/')}.py")
        assert not hasattr(module, "cython") or module.cython.compiled is False
    assert root.machine.built.source_hash() == ""


def test_interpreted_and_compiled_lives_are_apart(load: str) -> None:
    compiled = importlib.import_module("upcall.kern.layout")
    assert interp.load(name=load).kern.layout.Seg is not compiled.Seg
    assert sys.modules["upcall.kern.layout"] is compiled


def test_the_door_is_the_shim_or_the_callers(load: str) -> None:
    root = interp.load(name=load)
    assert root.machine.door.__file__ == str(PACKAGE / "machine/door.py")
    assert root.kern.layout.ld64 is root.machine.door.ld64
    mine = ModuleType("mine")
    mine.__dict__.update({name: value for name, value in vars(root.machine.door).items() if not name.startswith("__")})
    mine.ld64 = lambda m, o: 42  # type: ignore[attr-defined]
    interp.unload(load)
    again = interp.load(mine, load)
    assert again.machine.door is mine
    assert again.kern.layout.ld64 is mine.ld64
    assert root.kern.layout.ld64 is not mine.ld64


def test_loads_are_independent(load: str) -> None:
    first, second = interp.load(name=load), interp.load(name=f"{load}_2")
    try:
        assert first.kern.layout.Seg is not second.kern.layout.Seg
        assert first.machine.door is not second.machine.door
    finally:
        interp.unload(f"{load}_2")
    assert f"{load}_2.kern" not in sys.modules
    assert sys.modules[load] is first


def test_unload_leaves_no_way_to_import(load: str) -> None:
    interp.load(name=load)
    finders = len(sys.meta_path)
    interp.unload(load)
    assert len(sys.meta_path) == finders - 1
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{load}.kern")
    interp.unload(load)


def test_unload_leaves_others_alone() -> None:
    interp.unload("json")
    assert "json" in sys.modules


def test_only_protocol_layers_are_there(load: str) -> None:
    interp.load(name=load)
    for name in ("check", "_life", "kern.no_such_module", "machine.door.inner"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"{load}.{name}")


def test_a_taken_name_is_refused(load: str) -> None:
    interp.load(name=load)
    with pytest.raises(ValueError, match=f"'{load}' is loaded already"):
        interp.load(name=load)
    with pytest.raises(ValueError, match="'json' is loaded already"):
        interp.load(name="json")
    with pytest.raises(ValueError, match=r"'a\.b' of an interpreted life is not an identifier"):
        interp.load(name="a.b")


def test_a_failed_load_leaves_nothing(load: str) -> None:
    with pytest.raises(ImportError):
        interp.load(ModuleType("empty"), load)
    assert not [name for name in sys.modules if name.startswith(load)]
    interp.load(name=load)


def test_without_cython_the_error_says_what_to_install(load: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cython", None)
    with pytest.raises(ImportError, match="pip install Cython"):
        interp.load(name=load)


def test_life_fixture_gives_both_lives(life) -> None:  # type: ignore[no-untyped-def]
    file = life.kern.ucq.__file__
    assert file.endswith(tuple(EXTENSION_SUFFIXES)) if life.compiled else file.endswith("/kern/ucq.py")
