"""What the explorer is made of: the places of actors, a set of numbers, a hash. Compiled."""

import cython


class Node:
    """A place in an actor's life: what it asks there (None: it has ended, `error` tells how if badly), and what follows
    each answer."""

    def __init__(self, index: int, request, parent, value):
        self.index = index
        self.request = request
        self.parent = parent
        self.value = value
        self.live = []
        self.where = ()
        self.error = None
        self.edges = {}
        self.follows = None
        self.cached = 0
        self.kind = END
        if request is None:
            return
        self.kind = request[0]
        if self.kind <= AND:
            width: uint64_t = request[2]
            self.offset = request[1]
            self.word = self.offset >> 3
            self.shift = (self.offset & 7) * 8
            self.mask = ~cython.cast(uint64_t, 0) if width == 8 else (cython.cast(uint64_t, 1) << (8 * width)) - 1
            if self.kind != LOAD:
                self.arg = request[3]
            if self.kind == CAS:
                self.extra = request[4]
            elif self.kind == LOAD or self.kind == STORE:
                self.extra = request[len(request) - 1] != 0
        elif self.kind == FENCE:
            self.arg = request[1] == "mb"
            self.extra = 3 if request[1] == "mb" else 2 if request[1] == "rmb" else 1
        elif self.kind == WAIT or self.kind == WAKE:
            self.offset = request[1]
            self.word = self.offset >> 3
            self.shift = (self.offset & 7) * 8
            self.mask = 0xFFFFFFFF
            self.arg = request[3]
        elif self.kind != NOTE:
            self.arg = request[1]


def mix(x):
    """A hash of one number (splitmix64)."""
    step: uint64_t = 0x9E3779B97F4A7C15
    one: uint64_t = 0xBF58476D1CE4E5B9
    two: uint64_t = 0x94D049BB133111EB
    x += step
    x = (x ^ (x >> 30)) * one
    x = (x ^ (x >> 27)) * two
    return x ^ (x >> 31)


class Visited:
    """A set of 64-bit numbers."""

    def __cinit__(self):
        self.size = 1 << 16
        self.used = 0
        self.slots = cython.cast(cython.pointer(uint64_t), calloc(self.size, 8))
        if self.slots == cython.NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.slots)

    def add(self, key):
        """True if it was not there yet."""
        if key == 0:
            key = 1
        if self.used * 2 >= self.size:
            larger: cython.pointer(uint64_t) = cython.cast(cython.pointer(uint64_t), calloc(self.size * 2, 8))
            if larger == cython.NULL:
                raise MemoryError
            k: uint64_t = 0
            top: uint64_t = self.size * 2 - 1
            while k < self.size:
                if self.slots[k] != 0:
                    j: uint64_t = self.slots[k] & top
                    while larger[j] != 0:
                        j = (j + 1) & top
                    larger[j] = self.slots[k]
                k += 1
            free(self.slots)
            self.slots = larger
            self.size = self.size * 2
        at: uint64_t = key & (self.size - 1)
        while self.slots[at] != 0:
            if self.slots[at] == key:
                return False
            at = (at + 1) & (self.size - 1)
        self.slots[at] = key
        self.used += 1
        return True
