"""Compiles the protocol: every module that `src/upcall/_life.py` names, from its `.py` and `.pxd`.

Everything else about the package stands in `pyproject.toml`.

`UPCALL_DEATHS=1 python setup.py build --build-base DIR` makes a package apart whose machine layer dies where a test tells
it to (`machine/upcall_deaths.h`); never in place of the one that is used.
"""

import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import BaseError, CompileError

try:
    import Cython
    from Cython.Build import cythonize
except ImportError:
    raise SystemExit("upcall is compiled with Cython, which is missing: pip install 'Cython>=3.1'") from None

HERE = Path(__file__).resolve().parent
PACKAGE = Path("src/upcall")
ROOT = str(HERE / PACKAGE)

spec = spec_from_file_location("upcall_life", HERE / PACKAGE / "_life.py")
life = module_from_spec(spec)
spec.loader.exec_module(life)

DIRECTIVES = {
    "language_level": 3,
    "infer_types": True,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "freethreading_compatible": True,
    # None where a segment is expected is a TypeError, not a null pointer.
    "allow_none_for_extension_args": False,
}
DEATHS = bool(os.environ.get("UPCALL_DEATHS"))
FLAGS = [
    # The build that dies runs for a test's while: what counts is how soon it is made.
    "-O0" if DEATHS else "-O2",
    "-g0",
    "-std=c11",
    "-fno-strict-aliasing",
    "-Wall",
    # A constant that does not fit its C type means that the two lives compute different numbers.
    "-Werror=overflow",
    "-Werror=shift-count-overflow",
    "-Werror=implicit-function-declaration",
    "-Werror=incompatible-pointer-types",
    # What Cython's own code sets off: helpers that a module does not use.
    "-Wno-unused-function",
    "-Wno-unreachable-code",
    "-Wno-sign-compare",
]


def extensions() -> list[Extension]:
    """The modules to compile."""
    own = {"machine/built": [("UPCALL_SOURCE_HASH", f'"{life.source_hash(ROOT)}"')]}
    return [
        Extension(
            "upcall." + stem.replace("/", "."),
            [str(PACKAGE / f"{stem}.py")],
            include_dirs=[str(PACKAGE / "machine")],
            define_macros=own.get(stem, []) + [("UPCALL_DEATHS", None)] * DEATHS,
            extra_compile_args=FLAGS,
        )
        for stem in life.compiled_modules(ROOT)
    ]


def made_from(extension: Extension) -> str:
    """All that decides what a compiled module is: its own source, everybody's declarations and C, and how it is built.

    Contents, not dates: a file that is restored with its old date would otherwise leave a stale module in place.
    """
    stem = extension.name.removeprefix("upcall.").replace(".", "/")
    shared = [file for file in life.hashed_sources(ROOT) if not file.endswith(".py")]
    sources = life.source_hash(ROOT, [*shared, f"{stem}.py"])
    environment = [os.environ.get(name) for name in ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS")]
    return f"{sources} {Cython.__version__} {extension.define_macros} {environment}\n{Path(__file__).read_text()}"


class BuildExt(build_ext):
    """Cython first, then the C compiler, both on all cores, for each module that is not there as its sources are now."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        if DEATHS and self.inplace:
            raise BaseError(
                "UPCALL_DEATHS is set: that build is for tests, and goes to a folder of its own (--build-base)"
            )

    def build_extensions(self) -> None:
        stale = [extension for extension in self.extensions if not self.is_fresh(extension)]
        # In protocol code, widths come from the .pxd alone: an `int` in the .py would mean a Python integer. The
        # binding layer and the checker's engine are never interpreted: their annotations are C types.
        for bound in (False, True):
            group = [e for e in stale if e.name.startswith(("upcall.front.", "upcall.check.")) == bound]
            directives = {**DIRECTIVES, "annotation_typing": bound}
            made = cythonize(
                group,
                build_dir=self.generated(),
                compiler_directives=directives,
                force=True,
                quiet=True,
                nthreads=os.cpu_count() or 1,
            )
            for extension, generated in zip(group, made, strict=True):
                assert extension.name == generated.name
                extension.sources = generated.sources
        self.force = True
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        if self.is_fresh(ext):
            return
        stamp = self.stamp(ext)
        stamp.unlink(missing_ok=True)
        try:
            super().build_extension(ext)
        except CompileError as error:
            raise BaseError(
                f"upcall needs a working C compiler and Python's headers (Debian: apt install gcc python3-dev): {error}"
            ) from error
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(made_from(ext))

    def is_fresh(self, extension: Extension) -> bool:
        stamp = self.stamp(extension)
        built = Path(self.get_ext_fullpath(extension.name))
        return built.is_file() and stamp.is_file() and stamp.read_text() == made_from(extension)

    def generated(self) -> str:
        """Where the C code goes: builds that run at the same time must not share it."""
        return f"{self.build_temp}/cython" if DEATHS else "build/cython"

    def stamp(self, extension: Extension) -> Path:
        return Path(self.build_temp, f"{extension.name}.made-from")


class BuildPy(build_py):
    """Takes files that left the source tree out of an earlier build's folder, which would else ship them for ever."""

    def run(self) -> None:
        built = Path(self.build_lib, "upcall")
        for file in [path for path in built.rglob("*") if path.is_file()] if not self.editable_mode else []:
            source = Path(ROOT, file.relative_to(built))
            compiled_from = source.with_name(file.name.partition(".")[0] + ".pxd")
            if not source.exists() and not (file.suffix == ".so" and compiled_from.exists()):
                file.unlink()
        super().run()


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt, "build_py": BuildPy})
