from collections import deque
from collections.abc import Callable
from typing import Any

from ..kern.layout import Seg
from .dispatch import Dispatcher
from .parts import PartsSender

ANSWER_DEATH: int

class TaskState:
    _state: str
    _condition: Any
    _waiters: list[Any]
    _done_callbacks: list[Any]
    inbox: Inbox | None
    id: int
    call: Any
    death: int | None
    sent: bool
    def result(self, timeout: float | None = None) -> Any: ...
    def exception(self, timeout: float | None = None) -> BaseException | None: ...
    def finish(self, kind: int, payload: object, head: int, count: int) -> None: ...

class Inbox(Dispatcher):
    owner: Any
    out: PartsSender
    futures: dict[int, Any]
    overflow: deque[Any]
    slow: deque[Any]
    patience: int
    closing: bool
    over: bool
    def __init__(
        self,
        s: Seg,
        names: object,
        report: object,
        owner: object,
        make: object,
        out: PartsSender,
        task_type: int,
        window: int,
        dumps: Callable[..., bytes],
        by_name: bool,
    ) -> None: ...
    def submit(self, fn: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...
    def withdraw(self, f: TaskState, taken_back: bool) -> bool: ...
    def done_so_far(self) -> int: ...
    def give_up(self, error: BaseException) -> None: ...
    def attend(self, f: TaskState | None = None, timeout_ns: int = -1) -> None: ...
    def wake(self) -> None: ...
