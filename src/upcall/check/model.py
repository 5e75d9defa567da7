"""One moment of a scenario, and its moves: what the explorer walks through. Compiled.

Under `sc` a store is in memory at once. Under `tso` (x86) it goes into a buffer of its actor's own, in order, and reaches
memory as a move of its own, at any time; its actor reads it from there; read-modify-writes, full fences and system calls
wait until the buffer is empty. What a dead actor had in its buffer is in memory before anybody can tell that it is dead.
Under `ra` (C11's release and acquire, as on ARM) a shared word is its history, of which each actor reads what its view
allows (`views.py`). Fences, acquire loads and release stores mean what they mean there; read-modify-writes, futexes and
calls to the world are full fences.
"""

import cython

from .moment import Moment
from .verdict import Broken


class Model(Moment):
    """The moves of a plan under a memory model; each can be taken back."""

    # ---- from the start ------------------------------------------------------------------------------------------

    def replay(self, moves):
        """Makes these moves from the start, with everything traced: a list of (actor, kind, node, answer)."""
        self.trace = []
        self.stale_reads = {}
        what = None
        try:
            self.start()
            for who, kind, choice in moves:
                self.move(who | (kind << 8) | (choice << 16))
            self.plan.always(self.state)
            if self.list_moves() == 0:
                self.plan.at_end(self.state)
        except (Broken, AssertionError) as broken:
            what = str(broken) or "assertion failed"
        found = self.trace
        self.trace = None
        return found, what

    def start(self):
        self.begin()
        k: uint64_t = 0
        while k < self.n:
            self.settle(k)
            k += 1
        if self.ra:
            self.forget()
        return 0

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
                if self.ra:
                    self.add_older(i)
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

    def add_older(self, i):
        """Under `ra`: a move for each older store that the actor may read."""
        node: Node = cython.cast(Node, self.nodes[i])
        kind: uint64_t = node.kind
        if kind != LOAD and kind != CAS and (kind != WAIT or self.status[i] == WOKEN):
            return
        if node.word >= self.words or self.views.slots[node.word] == NONE:
            return
        slot: uint64_t = self.views.slots[node.word]
        most: uint64_t = self.views.choices(i, slot, kind != LOAD)
        k: uint64_t = 1
        while k < most:
            # A change is of the newest store, or none.
            if kind != CAS or (self.views.value(slot, k) >> node.shift) & node.mask != node.arg:
                self.add_move(i, STEP | (k << 8))
            k += 1

    def can_go_on(self, actor: uint64_t) -> bool:
        """Whether an actor has a step to make now: it has not ended, and waits for nothing."""
        return bool(self.can_step(actor))

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
        if not self.ra:
            return self.make(what)
        self.views.keep()
        self.push(U_VIEWS, 0, 0)
        self.make(what)
        return self.forget()

    def forget(self):
        """Under `ra`: forgets what nobody will read."""
        living: uint64_t = 0
        i: uint64_t = 0
        while i < self.n:
            if self.status[i] < STOPPED and cython.cast(Node, self.nodes[i]).kind != END:
                living |= cython.cast(uint64_t, 1) << i
            i += 1
        self.views.forget(living, self.touched)
        return 0

    def make(self, what):
        i: uint64_t = what & 255
        kind: uint64_t = what >> 8 & 255
        self.choice = what >> 16
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
            if self.ra:
                self.views.fence(i, FULL_FENCE)
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
                if node.arg != 0 and (self.ra or self.head[i] != self.tail[i]):
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
        elif kind == FENCE:
            if self.ra:
                self.views.fence(i, node.extra)
        elif self.ra and kind != NOTE and (kind != ALIVE or self.deaths != 0):
            self.views.fence(i, FULL_FENCE)
        if kind <= FENCE:
            pass
        elif kind == WAIT:
            if self.status[i] == WOKEN:
                self.push(U_STATUS, i, WOKEN)
                self.status[i] = RUNS
            else:
                if not self.shared[node.word]:
                    self.shared[node.word] = 1
                    self.stale = True
                if self.ra and self.views.slots[node.word] != NONE:
                    answer = self.views.read(i, self.views.slots[node.word], self.choice, True)
                    answer = (answer >> node.shift) & node.mask
                else:
                    answer = self.read(i, node)
                if answer == node.arg:
                    self.push(U_STATUS, i, self.status[i])
                    self.status[i] = ASLEEP
                    if self.trace is not None:
                        self.trace.append((i, STEP, node, "sleeps"))
                    self.choice = 0
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
            if self.choice != 0:
                self.stale_reads[len(self.trace)] = int(self.choice)
            self.trace.append((i, STEP, node, answer))
        self.choice = 0
        self.push(U_NODE, i, node.index)
        self.nodes[i] = following
        return 0

    def access(self, i, node):
        """A load, store or read-modify-write; what it returns."""
        kind: uint64_t = node.kind
        answer: uint64_t = 0
        value: uint64_t = 0
        if node.word < self.words and self.ra and self.views.slots[node.word] != NONE:
            return self.access_history(i, node)
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
                    value = changed(node, answer)
                    self.write(node.word, node.shift, node.mask, value)
        return answer

    def access_history(self, i, node):
        """The same, of a word that has a history."""
        kind: uint64_t = node.kind
        slot: uint64_t = self.views.slots[node.word]
        answer: uint64_t = 0
        if not (self.touched[node.word] >> i & 1):
            self.stale = True  # what this actor could have read was not kept for it
        self.touch(node.word, i, kind != LOAD)
        if kind == LOAD:
            answer = self.views.read(i, slot, self.choice, node.extra != 0)
            return (answer >> node.shift) & node.mask
        if kind == STORE:
            # A store to a part of a word carries along what the store before did: a word has one history.
            self.write(node.word, node.shift, node.mask, node.arg)
            self.views.write(i, slot, self.memory[node.word], node.extra != 0, node.mask != ~cython.cast(uint64_t, 0))
            return 0
        self.views.fence(i, FULL_FENCE)
        answer = (self.views.read(i, slot, self.choice, True) >> node.shift) & node.mask
        if kind == CAS:
            if answer == node.arg:
                self.write(node.word, node.shift, node.mask, node.extra)
                self.views.write(i, slot, self.memory[node.word], True, True)
                answer = 1
            else:
                answer = 0
        else:
            self.write(node.word, node.shift, node.mask, changed(node, answer))
            self.views.write(i, slot, self.memory[node.word], True, True)
        self.views.fence(i, FULL_FENCE)
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


def changed(node, before):
    """What a read-modify-write makes of a value."""
    value: uint64_t = node.arg
    if node.kind == ADD:
        return (before + value) & node.mask
    if node.kind == OR:
        return before | value
    if node.kind == AND:
        return before & value
    return value
