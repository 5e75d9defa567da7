"""The explorer: everything that can happen between a few actors, until every state has been seen.

A state is the shared memory, each actor's node and status, what is in store buffers, who is dead, and what was noted.
From each state it tries every move: a step of an actor that can go on, a buffered store reaching memory, a death, a stop.
A state that was seen before is not gone into again (states are told apart by 64-bit hashes of their whole contents: with
ten million states the chance that two share one is below one in a hundred thousand).

Accesses to words that only one actor touches, or that nobody changes, are no moves of their own: nobody can tell when
they happen. Which words these are is found by exploring: a word that turns out to be shared is noted, and the pass begins
anew; the last pass, which found none, is the one that counts.

`wander` does not explore: it makes random runs by priorities (PCT), which find what needs few orderings in scenarios that
are too large.

Compiled for speed; it is no protocol code, and has no interpreted life.
"""

import random
import time

import cython

from .model import Model
from .verdict import Broken, Shared, Verdict, Violation


class Explorer(Model):
    """Explores one plan under one model, with so many deaths and stops."""

    def __cinit__(self):
        self.room_levels = 1 << 12
        self.levels = cython.cast(cython.pointer(uint64_t), malloc(self.room_levels * 40))
        self.done = cython.cast(cython.pointer(uint64_t), malloc(self.room_levels * 8))

    def __dealloc__(self):
        free(self.levels)
        free(self.done)

    def run(self):
        """Explores until everything was seen, a promise is broken, or a limit is reached; the verdict."""
        verdict = Verdict(self.plan.name, self.model, self.deaths, self.stops, bound=self.limits.preemptions)
        start = time.monotonic()
        cpu = time.process_time()
        self.end_at = start + self.limits.seconds
        while True:
            verdict.passes += 1
            self.patience = 0
            try:
                self.one_pass(verdict)
                break
            except Shared:
                continue
        verdict.seconds = time.monotonic() - start
        verdict.cpu = time.process_time() - cpu
        verdict.nodes = [len(program.nodes) for program in self.programs]
        verdict.ran = sum([program.ran for program in self.programs])
        return verdict

    def wander(self, runs, seed, depth):
        """So many random runs. In each, whoever has the highest priority goes on; at `depth` - 1 random moments it falls to
        the lowest. A fault that shows whenever `depth` moves come in a certain order is found by a run of k moves of n
        actors with a probability of at least 1 / (n k^(depth - 1))."""
        verdict = Verdict(self.plan.name, self.model, self.deaths, self.stops)
        chance = random.Random(seed)
        start = time.monotonic()
        cpu = time.process_time()
        longest: object = 1
        made: object = 0
        cut: object = 0
        self.accesses = 0
        self.ends = 0
        self.made = 0
        while made < runs and time.monotonic() - start < self.limits.seconds:
            before = chance.getstate()
            try:
                self.start()
                ended = self.one_walk(chance, longest, depth)
            except (Broken, AssertionError) as broken:
                if not self.stale:
                    verdict.violation = Violation(str(broken) or "assertion failed", self.taken())
                    break
                ended = True
            longest = max(longest, int(self.depth))
            if self.stale:
                chance.setstate(before)  # a word turned out to be shared: the same run again, from its start
                continue
            made += 1
            cut += not ended
        verdict.states, verdict.moves, verdict.accesses, verdict.ends = 0, self.made, self.accesses, self.ends
        verdict.seconds = time.monotonic() - start
        verdict.cpu = time.process_time() - cpu
        verdict.nodes = [len(program.nodes) for program in self.programs]
        verdict.ran = sum([program.ran for program in self.programs])
        lanes = 2 * self.n if self.tso else self.n  # a buffer goes on by itself, like an actor
        bound = float(lanes) * float(longest) ** (depth - 1)
        verdict.why = (
            f"{made} random runs (seed {seed}), no proof: each finds a fault of {depth} ordering(s) with a chance of at "
            f"least 1 in {bound:.0f}"
            + (", if its loads read the newest" if self.ra else "")
            + (f"; {cut} run(s) ended after {WALK_MAX} moves" if cut else "")
        )
        return verdict

    def one_walk(self, chance, longest, depth):
        """One random run. False if it was ended because it was too long."""
        self.depth = 0
        order = list(range(32))
        chance.shuffle(order)
        ranks: dict = {lane: rank + depth for lane, rank in zip(order, range(32))}
        falls: set = {chance.randrange(longest + 1) for _ in range(depth - 1)}
        ends: dict = {
            chance.randrange(longest + 1): kind for kind in [DIE] * int(self.deaths) + [STOP] * int(self.stops)
        }
        lowest: object = depth
        alone: object = 0
        last: object = -1
        while self.depth < WALK_MAX:
            if self.plan.alls:
                self.plan.always(self.state)
            self.nmoves = 0
            self.undone = 0
            self.views.kept_used = 0
            count: uint64_t = self.list_moves()
            if count == 0:
                self.ends += 1
                self.plan.at_end(self.state)
                return True
            listed = [int(self.moves[k]) for k in range(count)]
            fate = ends.get(int(self.depth))
            fatal = [move for move in listed if move >> 8 & 255 == fate]
            lanes = {move & 255 | (move >> 8 & 255) << 4 for move in listed if move >> 8 & 255 <= FLUSH}
            if fatal:
                what = chance.choice(fatal)
            elif not lanes:
                self.ends += 1
                self.plan.at_end(self.state)
                return True
            else:
                lane = max(lanes, key=ranks.__getitem__)
                alone = alone + 1 if lane == last else 0
                last = lane
                if int(self.depth) in falls or alone > PATIENCE:
                    # Down it goes; so does who waits for others in a loop.
                    lowest -= 1
                    ranks[lane] = lowest
                    lane = max(lanes, key=ranks.__getitem__)
                what = chance.choice([move for move in listed if move & 255 | (move >> 8 & 255) << 4 == lane])
            if self.depth == self.room_levels:
                self.room_levels *= 2
                self.levels = cython.cast(cython.pointer(uint64_t), realloc(self.levels, self.room_levels * 40))
                self.done = cython.cast(cython.pointer(uint64_t), realloc(self.done, self.room_levels * 8))
            self.done[self.depth] = what
            self.depth += 1
            self.made += 1
            self.move(what)
        return False

    def one_pass(self, verdict):
        """Goes into every state once, depth first."""
        visited: Visited = Visited()
        self.checked = Visited()
        path: dict = {}
        self.accesses = 0
        self.ends = 0
        self.made = 0
        self.depth = 0
        verdict.violation = None
        try:
            self.start()
            self.enter(visited, path)
            while self.depth != 0:
                self.next_move(visited, path)
                if self.made & LOOK_EVERY == 0 and self.enough(verdict, visited.used):
                    return 0
            if self.stale:
                raise Shared
            verdict.complete = not self.bounded
            if self.bounded:
                verdict.why = f"every run with at most {self.limits.preemptions} preemption(s)"
        except (Broken, AssertionError) as broken:
            if self.stale:
                raise Shared from broken  # what was taken for private was not interleaved: no run that can be told
            verdict.violation = Violation(str(broken) or "assertion failed", self.taken())
        finally:
            verdict.states, verdict.moves, verdict.accesses = visited.used, self.made, self.accesses
            verdict.ends = self.ends
        return 0

    def enter(self, visited, path):
        """Into the present state, if it is new: checks it, and lists its moves as one more level of the search."""
        key: uint64_t = self.key()
        if not visited.add(key):
            since = path.get(key)
            if since is not None and not self.plan.spins and self.alone(since):
                who = self.programs[self.done[self.depth - 1] & 255].name
                raise Broken(f"endless loop: {who} goes on for ever by itself")
            return False
        if self.plan.alls and self.checked.add(self.visible()):
            self.plan.always(self.state)
        count: uint64_t = self.list_moves()
        if count == 0:
            self.ends += 1
            self.plan.at_end(self.state)
            return False
        if self.depth == self.room_levels:
            self.room_levels *= 2
            self.levels = cython.cast(cython.pointer(uint64_t), realloc(self.levels, self.room_levels * 40))
            self.done = cython.cast(cython.pointer(uint64_t), realloc(self.done, self.room_levels * 8))
        level: cython.pointer(uint64_t) = self.levels + self.depth * 5
        level[0] = self.nmoves - count
        level[1] = self.nmoves
        level[2] = level[0]
        level[3] = self.undone
        level[4] = key
        path[key] = self.depth
        self.depth += 1
        return True

    def next_move(self, visited, path):
        """Makes the next move of the innermost level, or leaves it. True if that led to a new state."""
        level: cython.pointer(uint64_t) = self.levels + (self.depth - 1) * 5
        if level[2] == level[1]:
            del path[level[4]]
            self.nmoves = level[0]
            self.depth -= 1
            if self.depth != 0:
                self.back(self.levels[(self.depth - 1) * 5 + 3])
            return False
        what: uint64_t = self.moves[level[2]]
        level[2] += 1
        mark: uint64_t = level[3]
        self.done[self.depth - 1] = what
        self.made += 1
        self.move(what)
        if self.enter(visited, path):
            if self.stale:
                # Words are found to be shared in groups: on for a while, to find the others, then from the start.
                if self.patience == 0:
                    self.patience = 2 * visited.used + 1000
                elif visited.used >= self.patience:
                    raise Shared
            return True
        self.back(mark)
        return False

    def enough(self, verdict, states):
        """Whether a limit is reached; `verdict.why` says which."""
        verdict.states, verdict.accesses, verdict.ends = states, self.accesses, self.ends
        if self.tell is not None:
            self.tell(verdict)
        if states >= self.limits.states:
            verdict.why = f"stopped after {states} states"
        elif time.monotonic() >= self.end_at:
            verdict.cut_short = True
            verdict.why = f"stopped after {self.limits.seconds:.0f} s"
        return bool(verdict.why)

    def taken(self):
        """The moves that led here."""
        return [
            (int(self.done[k] & 255), int(self.done[k] >> 8 & 255), int(self.done[k] >> 16)) for k in range(self.depth)
        ]

    def alone(self, since):
        """Whether the moves since then are all steps of one actor that read the newest: an older store is not read for
        ever."""
        k: uint64_t = since
        while k < self.depth:
            if self.done[k] != self.done[self.depth - 1] or (self.done[k] >> 8) != STEP:
                return False
            k += 1
        return True
