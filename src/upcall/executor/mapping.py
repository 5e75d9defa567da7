"""`Executor.map`: results in order, tasks made as they are wanted."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

AHEAD = 2000


def run_chunk(fn: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """In a worker: one chunk of calls."""
    return [fn(*args) for args in chunk]


class Mapped(Iterator[Any]):
    """The iterator that `Executor.map` returns."""

    _begun, _over = False, True  # until it is made
    _pid = 0

    def __init__(
        self,
        submit: Callable[..., Any],
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        chunksize: int,
        ahead: int | None,
    ) -> None:
        self._pid = os.getpid()
        self._submit = submit
        self._fn = fn
        self._end = None if timeout is None else time.monotonic() + timeout
        self._items = zip(*iterables, strict=False)
        self._chunksize = chunksize
        self._futures: deque[Any] = deque()
        self._results: deque[Any] = deque()
        self._fill(AHEAD if ahead is None else ahead)
        self._over = False

    def _fill(self, count: int) -> None:
        """So many more tasks, if there are items."""
        submit, fn, futures, chunksize = self._submit, self._fn, self._futures, self._chunksize
        if chunksize == 1:
            for args in itertools.islice(self._items, count):
                futures.append(submit(fn, *args))
        else:
            for _ in range(count):
                chunk = list(itertools.islice(self._items, chunksize))
                if not chunk:
                    break
                futures.append(submit(run_chunk, fn, chunk))

    def __next__(self) -> Any:
        self._begun = True
        if self._results:
            return self._results.popleft()
        if not self._futures:
            self._over = True
            raise StopIteration
        future = self._futures.popleft()
        try:
            left = None if self._end is None else self._end - time.monotonic()
            result = future.result(left)
        except BaseException:
            self._futures.appendleft(future)
            self.close()
            raise
        self._fill(1)
        if self._chunksize == 1:
            return result
        self._results.extend(result)
        return self._results.popleft()

    def do_all(self) -> None:
        """All tasks that are left, if nobody has asked for a result yet; they are done, whether anybody does or not."""
        if not self._begun and not self._over:
            for _ in iter(self._more, False):
                pass

    def _more(self) -> bool:
        before = len(self._futures)
        self._fill(AHEAD)
        return len(self._futures) > before

    def close(self) -> None:
        """Cancels what is left."""
        self._over = True
        self._items = zip(strict=False)
        while self._futures:
            self._futures.popleft().cancel()

    def __del__(self) -> None:
        if self._pid != os.getpid():
            return  # a forked child's copy: the tasks are its parent's
        if self._begun:
            self.close()
        else:
            self.do_all()
