"""One moment of a scenario, and its moves: what the explorer walks through. Compiled.

Under `sc` a store is in memory at once. Under `tso` (x86) it goes into a buffer of its actor's own, in order, and reaches
memory as a move of its own, at any time; its actor reads it from there; read-modify-writes, full fences and system calls
wait until the buffer is empty. What a dead actor had in its buffer is in memory before anybody can tell that it is dead.
"""

import cython

from .verdict import Broken, Limits, State


class Model:
    """A plan under a memory model, at one moment: memory, actors, buffers, what was noted; its moves, each of which can be
    taken back."""

    def __init__(self, plan, model: str = "sc", deaths: int = 0, stops: int = 0, limits=None):
        self.plan = plan
        self.model = model
        self.tso = model == "tso"
        self.deaths = deaths
        self.stops = stops
        self.limits = limits if limits is not None else Limits()
        self.bounded = self.limits.preemptions is not None
        self.programs = plan.programs
        self.n = len(self.programs)
        if self.n > 16:
            raise ValueError(f"scenario {plan.name}: {self.n} actors (at most 16)")
        self.words = plan.words
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

    # ---- from the start ------------------------------------------------------------------------------------------

    def replay(self, moves):
        """Makes these moves from the start, with everything traced: a list of (actor, kind, node, answer)."""
        self.trace = []
        what = None
        try:
            self.start()
            for who, kind, _choice in moves:
                self.move(who | (kind << 8))
            self.plan.always(self.state)
            if self.list_moves() == 0:
                self.plan.at_end(self.state)
        except (Broken, AssertionError) as broken:
            what = str(broken) or "assertion failed"
        found = self.trace
        self.trace = None
        return found, what

    def start(self):
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
        k = 0
        while k < self.n:
            self.settle(k)
            k += 1
        return 0

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
        if self.bounded:
            h ^= mix((self.last << 32) | (self.used << 16) | 7)
        return h

    # ---- moves ---------------------------------------------------------------------------------------------------

    def add_move(self, i, kind):
        if self.nmoves == self.moves_room:
            self.moves_room *= 2
            self.moves = cython.cast(cython.pointer(uint64_t), realloc(self.moves, self.moves_room * 8))
        self.moves[self.nmoves] = i | (kind << 8)
        self.nmoves += 1

    def list_moves(self):
        """Appends the moves of the present state; how many there are."""
        before: uint64_t = self.nmoves
        only: uint64_t = 255
        if self.bounded and self.last != 255 and self.used >= cython.cast(uint64_t, self.limits.preemptions):
            if self.can_step(self.last):
                only = self.last
        i: uint64_t = 0
        while i < self.n:
            if (only == 255 or only == i) and self.can_step(i):
                self.add_move(i, STEP)
            if self.head[i] != self.tail[i]:
                self.add_move(i, FLUSH)
            i += 1
        i = 0
        while i < self.n:
            if self.mortal >> i & 1 and cython.cast(Node, self.nodes[i]).kind != END:
                if self.died < self.deaths and self.status[i] != DEAD:
                    self.add_move(i, DIE)
                if self.halted < self.stops and self.status[i] < STOPPED:
                    self.add_move(i, STOP)
            i += 1
        return self.nmoves - before

    def can_step(self, i):
        node: Node = cython.cast(Node, self.nodes[i])
        if node.kind == END or (self.status[i] != RUNS and self.status[i] != WOKEN):
            return False
        if self.head[i] != self.tail[i] and node.kind != LOAD and node.kind != STORE and node.kind != NOTE:
            return node.kind == FENCE and node.arg == 0
        if node.kind == REST:
            return (self.interrupted[node.arg >> 6 & 1] >> (node.arg & 63) & 1) != 0
        return True

    def move(self, what):
        i: uint64_t = what & 255
        kind: uint64_t = what >> 8
        if kind == STEP:
            if self.bounded and i != self.last:
                self.push(U_LAST, self.last, self.used)
                if self.last != 255 and self.can_step(self.last):
                    self.used += 1
                self.last = i
            self.step(i)
            return self.settle(i)
        if self.trace is not None:
            self.trace.append((i, kind, None, None))
        if kind == FLUSH:
            self.flush(i)
        elif kind == DIE:
            # A killed process ends in the kernel, behind its last stores: nobody can tell before they are in memory.
            while self.head[i] != self.tail[i]:
                self.flush(i)
            self.push(U_STATUS, i, self.status[i])
            self.status[i] = DEAD
            self.push(U_DIED, 0, 0)
            self.died += 1
            self.set_interrupt(DIED + i, True)
        else:
            self.push(U_STATUS, i, self.status[i])
            self.status[i] = STOPPED
            self.push(U_HALTED, 0, 0)
            self.halted += 1
        return 0

    def flush(self, i):
        """The oldest buffered store reaches memory."""
        at: cython.pointer(uint64_t) = self.stores[i] + self.head[i] * 3
        self.push(U_HEAD, i, self.head[i])
        self.head[i] += 1
        wide: uint64_t = at[1] >> 8
        mask: uint64_t = ~cython.cast(uint64_t, 0) if wide == 8 else (cython.cast(uint64_t, 1) << (8 * wide)) - 1
        self.write(at[0], at[1] & 255, mask, at[2])

    def settle(self, i):
        """Goes on with what nobody else can see, up to the next access that somebody might."""
        k: uint64_t = 0
        while k < LOCAL_MAX:
            node: Node = cython.cast(Node, self.nodes[i])
            kind: uint64_t = node.kind
            if kind == END:
                if node.error is not None:
                    raise Broken(node.error)
                return 0
            if kind <= AND:
                if node.word < self.words and self.shared[node.word]:
                    return 0
                if kind > STORE and self.head[i] != self.tail[i]:
                    return 0
            elif kind == FENCE:
                if node.arg != 0 and self.head[i] != self.tail[i]:
                    return 0
            elif kind == ALIVE:
                if self.deaths != 0:
                    return 0
            elif kind != NOTE:
                return 0
            self.step(i)
            k += 1
        raise Broken(f"endless loop: {self.programs[i].name} makes {LOCAL_MAX} accesses that nobody else can see")

    # ---- steps ---------------------------------------------------------------------------------------------------

    def step(self, i):
        node: Node = cython.cast(Node, self.nodes[i])
        kind: uint64_t = node.kind
        answer: uint64_t = 0
        self.accesses += 1
        if kind <= AND:
            answer = self.access(i, node)
        elif kind == WAIT:
            if self.status[i] == WOKEN:
                self.push(U_STATUS, i, WOKEN)
                self.status[i] = RUNS
            else:
                if not self.shared[node.word]:
                    self.shared[node.word] = 1
                    self.stale = True
                if self.read(i, node) == node.arg:
                    self.push(U_STATUS, i, self.status[i])
                    self.status[i] = ASLEEP
                    if self.trace is not None:
                        self.trace.append((i, STEP, node, "sleeps"))
                    return 0
                answer = EAGAIN
        elif kind == WAKE:
            answer = self.wake(node.offset, node.arg)
        elif kind == ALIVE:
            owner = self.plan.slots.get(node.arg)
            answer = 1 if owner is None or self.status[cython.cast(uint64_t, owner)] != DEAD else 0
        elif kind == INTERRUPT:
            self.set_interrupt(node.arg, True)
            answer = 1
        elif kind == REST:
            self.set_interrupt(node.arg, False)
        elif kind == NOTE:
            self.note(node.request[1])
        following: Node = node.follows
        if following is None or node.cached != answer:
            python: object = None
            if kind == LOAD or (kind >= XCHG and kind <= AND) or (kind >= WAIT and kind <= WAKE):
                python = answer
            elif kind == CAS or kind == ALIVE:
                python = answer != 0
            elif kind == INTERRUPT:
                python = 1
            elif kind == GROW:
                python = 0
            following = node.edges.get(python)
            if following is None:
                following = self.programs[i].after(node, python)
            node.follows = following
            node.cached = answer
        if self.trace is not None:
            self.trace.append((i, STEP, node, answer))
        self.push(U_NODE, i, node.index)
        self.nodes[i] = following
        return 0

    def access(self, i, node):
        """A load, store or read-modify-write; what it returns."""
        kind: uint64_t = node.kind
        answer: uint64_t = 0
        value: uint64_t = 0
        if node.word >= self.words:
            raise Broken(f"G10: {self.programs[i].name} reaches outside the segment, at offset {node.offset}")
        if kind == LOAD:
            if not (self.touched[node.word] >> i & 1):
                self.touch(node.word, i, False)
            answer = self.read(i, node)
        else:
            if not (self.written[node.word] >> i & 1):
                self.touch(node.word, i, True)
            if kind == STORE:
                if self.tso and self.shared[node.word]:
                    if self.tail[i] == self.room[i]:
                        self.room[i] *= 2
                        self.stores[i] = cython.cast(
                            cython.pointer(uint64_t), realloc(self.stores[i], self.room[i] * 24)
                        )
                    at: cython.pointer(uint64_t) = self.stores[i] + self.tail[i] * 3
                    at[0] = node.word
                    wide: uint64_t = 8
                    if node.mask != ~cython.cast(uint64_t, 0):
                        wide = 4 if node.mask == 0xFFFFFFFF else (2 if node.mask == 0xFFFF else 1)
                    at[1] = node.shift | (wide << 8)
                    at[2] = node.arg
                    self.push(U_TAIL, i, self.tail[i])
                    self.tail[i] += 1
                else:
                    self.write(node.word, node.shift, node.mask, node.arg)
            else:
                answer = self.read(i, node)
                if kind == CAS:
                    if answer == node.arg:
                        self.write(node.word, node.shift, node.mask, node.extra)
                        answer = 1
                    else:
                        answer = 0
                else:
                    value = node.arg
                    if kind == ADD:
                        value = (answer + value) & node.mask
                    elif kind == OR:
                        value = answer | value
                    elif kind == AND:
                        value = answer & value
                    self.write(node.word, node.shift, node.mask, value)
        return answer

    def wake(self, offset, most):
        woken: uint64_t = 0
        j: uint64_t = 0
        while j < self.n and woken < most:
            node: Node = cython.cast(Node, self.nodes[j])
            if node.kind == WAIT and node.offset == offset:
                if self.status[j] == ASLEEP:
                    self.push(U_STATUS, j, ASLEEP)
                    self.status[j] = WOKEN
                    woken += 1
                elif self.status[j] == STOPPED:
                    woken += 1  # the kernel counts it, though it does not go on
            j += 1
        return woken

    def set_interrupt(self, number, on):
        which: uint64_t = number >> 6 & 1
        bit: uint64_t = cython.cast(uint64_t, 1) << (number & 63)
        self.push(U_INTERRUPTED, which, self.interrupted[which])
        if on:
            self.interrupted[which] |= bit
        else:
            self.interrupted[which] &= ~bit

    def note(self, what):
        notes: dict = self.state.notes
        before = notes.get(what, 0)
        self.noted.append(what)
        self.push(U_NOTE, 0, 0)
        notes[what] = before + 1
        h: uint64_t = hash((what, before + 1)) & 0xFFFFFFFFFFFFFFFF
        self.hash ^= mix(h)
        return 0

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
            else:
                self.halted -= 1
