"""One moment of a scenario: memory, buffers, histories, where each actor is; and the way back to earlier ones. Compiled."""

import cython

from .verdict import Limits, State


class Moment:
    """A plan under a memory model, at one moment: memory, actors, buffers, what was noted."""

    def __init__(self, plan, model: str = "sc", deaths: int = 0, stops: int = 0, limits=None):
        self.plan = plan
        self.model = model
        self.tso = model == "tso"
        self.ra = model == "ra"
        self.deaths = deaths
        self.stops = stops
        self.limits = limits if limits is not None else Limits()
        self.bounded = self.limits.preemptions is not None
        self.programs = plan.programs
        self.n = len(self.programs)
        if self.n > 16:
            raise ValueError(f"scenario {plan.name}: {self.n} actors (at most 16)")
        self.words = plan.words
        self.views = Views(self.n, self.words)
        self.tell = None
        self.trace = None
        self.memory = cython.cast(cython.pointer(uint64_t), calloc(self.words + 1, 8))
        self.touched = cython.cast(cython.pointer(uint64_t), calloc(self.words + 1, 8))
        self.written = cython.cast(cython.pointer(uint64_t), calloc(self.words + 1, 8))
        self.shared = cython.cast(cython.pointer(uint8_t), calloc(self.words + 1, 1))
        self.undo_room = 1 << 16
        self.undo = cython.cast(cython.pointer(uint64_t), malloc(self.undo_room * 16))
        self.moves_room = 1 << 12
        self.moves = cython.cast(cython.pointer(uint64_t), malloc(self.moves_room * 8))
        self.stores = cython.cast(cython.pointer(cython.pointer(uint64_t)), calloc(16, 8))
        i: uint64_t = 0
        while i < 16:
            self.room[i] = 1 << 10
            self.stores[i] = cython.cast(cython.pointer(uint64_t), malloc(self.room[i] * 24))
            i += 1

    def __dealloc__(self):
        free(self.memory)
        free(self.touched)
        free(self.written)
        free(self.shared)
        free(self.undo)
        free(self.moves)
        i: uint64_t = 0
        while i < 16:
            free(self.stores[i])
            i += 1
        free(self.stores)

    # ---- for checks ----------------------------------------------------------------------------------------------

    def word(self, number: uint64_t) -> uint64_t:
        """A word of memory."""
        return self.memory[number] if number < self.words else 0

    def status_of(self, actor: uint64_t) -> int:
        """An actor's status."""
        return self.status[actor & 15]

    def has_ended(self, actor: uint64_t) -> bool:
        """Whether an actor has come to its end."""
        node: Node = self.nodes[actor]
        return node.kind == END

    def share(self, words) -> None:
        """Takes these words for shared from the start."""
        for number in words:
            if 0 <= number < self.words:
                self.shared[cython.cast(uint64_t, number)] = 1

    def shared_words(self) -> list:
        """The words found to be shared so far."""
        return [k for k in range(self.words) if self.shared[k]]

    def buffered(self, actor: uint64_t) -> list:
        """What is in an actor's store buffer: (word, shift, value)."""
        found = []
        k: uint64_t = self.head[actor]
        while k < self.tail[actor]:
            found.append(tuple([int(self.stores[actor][k * 3 + j]) for j in range(3)]))
            k += 1
        return found

    # ---- the state -------------------------------------------------------------------------------------------------

    def begin(self):
        """How the scenario starts."""
        k: uint64_t = 0
        while k < self.words:
            self.memory[k] = 0
            k += 1
        for at, value in self.plan.memory.items():
            self.memory[at] = value
        self.state = State(self, [program.name for program in self.programs])
        self.nodes = [program.root for program in self.programs]
        self.tables = [program.nodes for program in self.programs]
        self.noted = []
        self.mortal = 0
        for i in self.plan.mortal:
            self.mortal |= cython.cast(uint64_t, 1) << cython.cast(uint64_t, i)
        k = 0
        while k < 16:
            self.status[k] = RUNS
            self.head[k] = 0
            self.tail[k] = 0
            k += 1
        self.hash = 0
        self.died = 0
        self.halted = 0
        self.last = 255
        self.used = 0
        self.interrupted[0] = 0
        self.interrupted[1] = 0
        self.undone = 0
        self.nmoves = 0
        self.stale = False
        if self.ra:
            self.views.begin(self.words, self.shared, self.memory)
        return 0

    def visible(self):
        """A hash of what checks may look at."""
        h: uint64_t = self.hash
        i: uint64_t = 0
        while i < self.n:
            ended: uint64_t = cython.cast(Node, self.nodes[i]).kind == END
            h ^= mix((self.status[i] << 8) | (i << 4) | (ended << 1) | 0x10001)
            i += 1
        return h

    def key(self):
        h: uint64_t = self.hash
        i: uint64_t = 0
        while i < self.n:
            node: Node = cython.cast(Node, self.nodes[i])
            h ^= mix((node.index << 12) | (self.status[i] << 8) | (i << 4) | 1)
            k: uint64_t = self.head[i]
            if k != self.tail[i]:
                b: uint64_t = i + 17
                while k < self.tail[i]:
                    at: cython.pointer(uint64_t) = self.stores[i] + k * 3
                    b = mix(b ^ mix(at[0] * 64 + at[1]) ^ at[2])
                    k += 1
                h ^= b
            i += 1
        h ^= mix(self.interrupted[0] * 2 + 0x1000003) ^ mix(self.interrupted[1] * 2 + 0x5000005)
        if self.ra:
            h ^= mix(self.views.key())
        if self.bounded:
            h ^= mix((self.last << 32) | (self.used << 16) | 7)
        return h

    # ---- memory --------------------------------------------------------------------------------------------------

    def read(self, i, node):
        value: uint64_t = self.memory[node.word]
        k: uint64_t = self.head[i]
        while k < self.tail[i]:
            at: cython.pointer(uint64_t) = self.stores[i] + k * 3
            if at[0] == node.word:
                wide: uint64_t = at[1] >> 8
                if wide == 8:
                    value = at[2]
                else:
                    mask: uint64_t = (cython.cast(uint64_t, 1) << (8 * wide)) - 1
                    value = (value & ~(mask << (at[1] & 255))) | (at[2] << (at[1] & 255))
            k += 1
        return (value >> node.shift) & node.mask

    def write(self, word, shift, mask, value):
        before: uint64_t = self.memory[word]
        value = (before & ~(mask << shift)) | (value << shift)
        if value != before:
            self.push(U_WORD, word, before)
            self.memory[word] = value
            self.hash ^= mix(mix(word + 3) ^ before) ^ mix(mix(word + 3) ^ value)

    def touch(self, word, i, writes):
        """Notes who touches a word: two actors, one of which writes, and it is shared."""
        bit: uint64_t = cython.cast(uint64_t, 1) << i
        self.touched[word] |= bit
        if writes:
            self.written[word] |= bit
        if not self.shared[word] and self.written[word] != 0 and self.touched[word] & (self.touched[word] - 1):
            self.shared[word] = 1
            self.stale = True
        return 0

    # ---- back ----------------------------------------------------------------------------------------------------

    def push(self, kind, a, b):
        if self.undone == self.undo_room:
            self.undo_room *= 2
            self.undo = cython.cast(cython.pointer(uint64_t), realloc(self.undo, self.undo_room * 16))
        self.undo[self.undone * 2] = kind | (a << 8)
        self.undo[self.undone * 2 + 1] = b
        self.undone += 1

    def back(self, mark):
        while self.undone > mark:
            self.undone -= 1
            kind: uint64_t = self.undo[self.undone * 2] & 255
            a: uint64_t = self.undo[self.undone * 2] >> 8
            b: uint64_t = self.undo[self.undone * 2 + 1]
            if kind == U_NODE:
                table: list = cython.cast(list, self.tables[a])
                self.nodes[a] = table[b]
            elif kind == U_WORD:
                self.hash ^= mix(mix(a + 3) ^ b) ^ mix(mix(a + 3) ^ self.memory[a])
                self.memory[a] = b
            elif kind == U_STATUS:
                self.status[a] = b
            elif kind == U_HEAD:
                self.head[a] = b
            elif kind == U_TAIL:
                self.tail[a] = b
            elif kind == U_NOTE:
                what = self.noted.pop()
                notes: dict = self.state.notes
                h: uint64_t = hash((what, notes[what])) & 0xFFFFFFFFFFFFFFFF
                self.hash ^= mix(h)
                notes[what] -= 1
            elif kind == U_LAST:
                self.last = a
                self.used = b
            elif kind == U_INTERRUPTED:
                self.interrupted[a] = b
            elif kind == U_DIED:
                self.died -= 1
            elif kind == U_VIEWS:
                self.views.back()
            else:
                self.halted -= 1
