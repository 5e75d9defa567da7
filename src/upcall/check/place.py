"""What an actor's future depends on, as something that can be compared: all that its variables lead to. Compiled.

Finding new places is what exploring small scenarios costs most, and comparing is most of that.
"""

from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

SEQUENCES = ([], (), range(1), {}, set(), "", b"", range(1 << 70))
FIXED = (type, ModuleType, CodeType, BuiltinFunctionType)
"""What does not change."""
ITERATORS = {type(iter(made)) for made in SEQUENCES}


class Frozen:
    """Values' contents, all the way down, one after the other; the same object twice is said to be the same."""

    def __cinit__(self):
        self.parts = []
        self.memo = {}
        self.made = []  # kept alive: another object at the address of one that is gone would be taken for it

    def add(self, value):
        """One value. What stands for it begins with its type, and says how much follows."""
        kind = type(value)
        if kind is int or kind is str or kind is bytes or value is None:
            self.parts.append(value)
            return 0
        if isinstance(value, (int, str, bytes, float, range)):
            self.parts.append((kind, value))
            return 0
        if isinstance(value, FIXED):
            self.parts.append(("fixed", id(value)))
            return 0
        fixed = getattr(value, "check_key", None)
        if fixed is not None:
            self.parts.append(("shared", fixed))  # its contents are memory's
            return 0
        seen = self.memo.get(id(value))
        if seen is not None:
            self.parts.append(("again", seen))
            return 0
        self.memo[id(value)] = len(self.memo)
        if isinstance(value, (list, tuple)):
            self.parts.append((kind, len(value)))
            for item in value:
                self.add(item)
            return 0
        if isinstance(value, dict):
            self.parts.append((kind, len(value)))
            self.add_mapping(dict(value))
            return 0
        if isinstance(value, (set, frozenset)):
            items = [frozen(item) for item in value]
            self.opaque = self.opaque or None in items
            self.parts.append((kind, frozenset(items)))
            return 0
        if kind is bytearray:
            self.parts.append((kind, bytes(value)))
            return 0
        if kind in ITERATORS:
            reduced = value.__reduce__()[1:]
            self.made.append(reduced)
            self.parts.append(("iterator", len(reduced)))
            for item in reduced:
                self.add(item)
            return 0
        if kind is FunctionType:
            cells = [cell.cell_contents for cell in value.__closure__ or () if filled(cell)]
            self.parts.append((id(value.__code__), len(cells)))
            self.add(value.__defaults__)
            for item in cells:
                self.add(item)
            return 0
        if kind is MethodType:
            self.parts.append(("method", id(value.__func__)))
            return self.add(value.__self__)
        contents = getattr(value, "__dict__", None)
        if contents is None:
            self.opaque = True
            return 0
        self.parts.append((id(kind), len(contents)))
        return self.add_mapping(dict(contents))

    def add_mapping(self, mapping):
        for name, item in mapping.items():
            self.add(name)
            self.add(item)
        return 0


def frozen(value):
    """One value's contents, all the way down; None if they cannot be looked at."""
    found: Frozen = Frozen()
    found.add(value)
    return None if found.opaque else tuple(found.parts)


def place(request, frames):
    """A request, and frames' places and variables; None if something in a variable cannot be looked at."""
    found: Frozen = Frozen()
    found.parts.append(request)
    for frame in frames:
        found.parts.append((id(frame.f_code), frame.f_lasti))
        variables: dict = dict(frame.f_locals)  # a mapping of its own kind since Python 3.13
        found.parts.append(len(variables))
        found.add_mapping(variables)
    return None if found.opaque else tuple(found.parts)


def filled(cell):
    """Whether a variable of an outer function has been set."""
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
