"""Release/acquire memory: each word's history, and how much of it each actor must have seen. Compiled.

A word is not one value but the stores that were made to it, in order (its modification order, here the order in which they
are made). An actor has a view: for each word the oldest store that it may still read. A load reads any store from there
on, and the view moves up to it. A release store carries its actor's view along, and an acquire load that reads it takes
that view over; so do relaxed ones behind a release fence and before an acquire fence. Full fences are in one order, and
each takes over what those before it had seen.

Each actor has three views: what it must have seen (0), what it will have seen after an acquire fence (1), and what its
relaxed stores carry along, which is what it had seen at its last release fence (2). One more is that of the full fences.

What nobody can read any more is forgotten, and the rest is numbered anew from 0; so what is left is all that the future
depends on, and as a run of bytes it is compared and kept.
"""

import cython


class Views:
    """The histories of the shared words, and the views of `n` actors."""

    def __cinit__(self, n: int, words: int):
        self.n = n
        self.room = 1 << 12
        self.now = cython.cast(cython.pointer(uint8_t), malloc(self.room))
        self.kept_room = 1 << 16
        self.kept = cython.cast(cython.pointer(uint8_t), malloc(self.kept_room))
        self.slots = cython.cast(cython.pointer(uint16_t), malloc((words + 1) * 2))
        self.words = cython.cast(cython.pointer(uint16_t), malloc((words + 1) * 2))
        if (
            self.now == cython.NULL
            or self.kept == cython.NULL
            or self.slots == cython.NULL
            or self.words == cython.NULL
        ):
            raise MemoryError

    def __dealloc__(self):
        free(self.now)
        free(self.kept)
        free(self.slots)
        free(self.words)

    def begin(self, nwords, shared, memory):
        """One store for each shared word: what it holds at the start."""
        k: uint64_t = 0
        count: uint64_t = 0
        while k < nwords:
            self.slots[k] = NONE
            if shared[k]:
                self.slots[k] = count
                self.words[count] = k
                count += 1
            k += 1
        if count >= NONE:
            raise MemoryError
        self.nwords = count
        self.wide = (count + 7) & ~cython.cast(uint64_t, 7)
        self.record = self.wide + 8
        self.total = 0
        self.kept_used = 0
        self.grow((3 * self.n + 2) * self.wide + (count + 1) * self.record)
        memset(self.now, 0, (3 * self.n + 2) * self.wide)
        k = 0
        while k < nwords:
            if shared[k]:
                at: cython.pointer(uint8_t) = self.message(self.total)
                memset(at, 0, self.record)
                cython.cast(cython.pointer(uint64_t), at)[0] = memory[k]
                self.view(3 * self.n + 1)[self.slots[k]] = 1
                self.total += 1
            k += 1
        return 0

    def grow(self, needed):
        if needed > self.room:
            while self.room < needed:
                self.room *= 2
            self.now = cython.cast(cython.pointer(uint8_t), realloc(self.now, self.room))
            if self.now == cython.NULL:
                raise MemoryError
        return 0

    def view(self, which):
        """A view; behind those of actors (three each) the full fences', and then how many stores each word has."""
        return self.now + which * self.wide

    def message(self, number):
        return self.now + (3 * self.n + 2) * self.wide + number * self.record

    def used(self):
        return (3 * self.n + 2) * self.wide + self.total * self.record

    def first(self, slot):
        """The number of the oldest store to a word that is remembered."""
        counts: cython.pointer(uint8_t) = self.view(3 * self.n + 1)
        found: uint64_t = 0
        k: uint64_t = 0
        while k < slot:
            found += counts[k]
            k += 1
        return found

    # ---- accesses ------------------------------------------------------------------------------------------------

    def choices(self, i, slot, fenced):
        """How many stores an actor may read, the newest among them; `fenced`: if a full fence comes before."""
        seen: uint64_t = self.view(3 * i)[slot]
        if fenced:
            seen = max(seen, self.view(3 * i + 1)[slot], self.view(3 * self.n)[slot])
        return self.view(3 * self.n + 1)[slot] - seen

    def value(self, slot, back):
        """What the newest store but `back` wrote."""
        number: uint64_t = self.first(slot) + self.view(3 * self.n + 1)[slot] - 1 - back
        return cython.cast(cython.pointer(uint64_t), self.message(number))[0]

    def read(self, i, slot, back, acquire):
        """An actor reads the newest store but `back`."""
        which: uint64_t = self.view(3 * self.n + 1)[slot] - 1 - back
        at: cython.pointer(uint8_t) = self.message(self.first(slot) + which)
        mine: cython.pointer(uint8_t) = self.view(3 * i)
        later: cython.pointer(uint8_t) = self.view(3 * i + 1)
        mine[slot] = max(mine[slot], which)
        later[slot] = max(later[slot], which)
        _join(later, at + 8, self.wide)
        if acquire:
            _join(mine, at + 8, self.wide)
        return cython.cast(cython.pointer(uint64_t), at)[0]

    def write(self, i, slot, value, release, goes_on):
        """An actor stores; `goes_on`: it is a change of what the newest store wrote, and carries along what that did."""
        counts: cython.pointer(uint8_t) = self.view(3 * self.n + 1)
        if counts[slot] == 255:
            raise OverflowError("more than 255 stores to one word that some actor may still read")
        self.grow(self.used() + self.record)
        counts = self.view(3 * self.n + 1)
        number: uint64_t = self.first(slot) + counts[slot]
        at: cython.pointer(uint8_t) = self.message(number)
        memmove(at + self.record, at, (self.total - number) * self.record)
        mine: cython.pointer(uint8_t) = self.view(3 * i)
        later: cython.pointer(uint8_t) = self.view(3 * i + 1)
        mine[slot] = counts[slot]
        later[slot] = counts[slot]
        cython.cast(cython.pointer(uint64_t), at)[0] = value
        memcpy(at + 8, mine if release else self.view(3 * i + 2), self.wide)
        if goes_on:
            _join(at + 8, at - self.record + 8, self.wide)
        at[8 + slot] = counts[slot]
        counts[slot] += 1
        self.total += 1
        return 0

    def fence(self, i, kind):
        mine: cython.pointer(uint8_t) = self.view(3 * i)
        later: cython.pointer(uint8_t) = self.view(3 * i + 1)
        if kind != RELEASE_FENCE:
            memcpy(mine, later, self.wide)
        if kind == FULL_FENCE:
            full: cython.pointer(uint8_t) = self.view(3 * self.n)
            _join(full, mine, self.wide)
            memcpy(mine, full, self.wide)
            memcpy(later, full, self.wide)
        if kind != ACQUIRE_FENCE:
            memcpy(self.view(3 * i + 2), mine, self.wide)

    # ---- what the future depends on ------------------------------------------------------------------------------

    def forget(self, living, touched):
        """Forgets what no living actor can read any more. An actor that never touches a word keeps nothing of it; who
        does is found by exploring, as it is found which words are shared."""
        n: uint64_t = self.n
        wide: uint64_t = self.wide
        counts: cython.pointer(uint8_t) = self.view(3 * n + 1)
        i: uint64_t = 0
        while i < n:
            if not (living >> i & 1):
                memset(self.view(3 * i), 0, 3 * wide)
            i += 1
        start: uint64_t = 0
        c: uint64_t = 0
        k: uint64_t = 0
        while c < self.nwords:
            if counts[c] > 1:
                oldest: uint64_t = counts[c] - 1
                i = 0
                while i < n:
                    if living >> i & 1 and touched[self.words[c]] >> i & 1 and self.view(3 * i)[c] < oldest:
                        oldest = self.view(3 * i)[c]
                    i += 1
                if oldest != 0:
                    at: cython.pointer(uint8_t) = self.message(start)
                    memmove(at, at + oldest * self.record, (self.total - start - oldest) * self.record)
                    self.total -= oldest
                    counts[c] -= oldest
                    k = 0
                    while k < 3 * n + 1:
                        _lower(self.view(k) + c, oldest)
                        k += 1
                    k = 0
                    while k < self.total:
                        _lower(self.message(k) + 8 + c, oldest)
                        k += 1
            start += counts[c]
            c += 1
        # What a message or the fences' view carries along matters only to somebody who has not seen it.
        c = 0
        while c < self.nwords:
            least: uint64_t = 255
            i = 0
            while i < n:
                if living >> i & 1 and self.view(3 * i)[c] < least:
                    least = self.view(3 * i)[c]
                i += 1
            if least != 0:
                k = 2
                while k < 3 * n:
                    if self.view(k)[c] <= least:
                        self.view(k)[c] = 0
                    k += 3
                if self.view(3 * n)[c] <= least:
                    self.view(3 * n)[c] = 0
                k = 0
                while k < self.total:
                    at = self.message(k) + 8 + c
                    if at[0] <= least:
                        at[0] = 0
                    k += 1
            c += 1

    def key(self):
        """A hash of all of it."""
        at: cython.pointer(uint64_t) = cython.cast(cython.pointer(uint64_t), self.now)
        k: uint64_t = self.used() >> 3
        h: uint64_t = k
        much: uint64_t = 0xBF58476D1CE4E5B9
        while k != 0:
            k -= 1
            h = (h ^ at[k]) * much
            h ^= h >> 32
        return h

    def keep(self):
        """Remembers the present moment."""
        size: uint64_t = self.used()
        if self.kept_used + size + 8 > self.kept_room:
            while self.kept_used + size + 8 > self.kept_room:
                self.kept_room *= 2
            self.kept = cython.cast(cython.pointer(uint8_t), realloc(self.kept, self.kept_room))
            if self.kept == cython.NULL:
                raise MemoryError
        memcpy(self.kept + self.kept_used, self.now, size)
        self.kept_used += size + 8
        cython.cast(cython.pointer(uint64_t), self.kept + self.kept_used - 8)[0] = self.total
        return 0

    def back(self):
        """Back to the moment remembered last."""
        self.total = cython.cast(cython.pointer(uint64_t), self.kept + self.kept_used - 8)[0]
        size: uint64_t = self.used()
        self.kept_used -= size + 8
        memcpy(self.now, self.kept + self.kept_used, size)


def _join(into, other, wide):
    """The later of each."""
    k: uint64_t = 0
    while k < wide:
        if other[k] > into[k]:
            into[k] = other[k]
        k += 1


def _lower(at, by):
    at[0] = at[0] - by if at[0] > by else 0
