from collections.abc import Callable
from typing import Any

from ..kern.layout import Seg
from ..parlib.vcore import VCore

class Dispatcher(VCore):
    names: Any
    report: Any
    threads: set[int]
    active: list[int]
    spin_ns: int
    in_vcore_context: bool
    s: Seg
    leaving: bool
    in_uthread_context: Callable[..., None]
    def __init__(self, s: Seg, vcoreid: int, names: object, report: object) -> None: ...
    def handle(self, queue: object, type_number: int, handler: object, batch_max: int) -> None: ...
    def run_thread(self, queue: int) -> int: ...
    def turn(self) -> int: ...
    def idle(self) -> bool: ...
    def sleep(self) -> int: ...
