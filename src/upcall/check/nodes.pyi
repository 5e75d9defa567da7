from typing import Any

class Node:
    index: int
    request: tuple[Any, ...] | None
    parent: Node | None
    value: Any
    edges: dict[Any, Node]
    live: list[Any]
    where: tuple[tuple[str, int, str], ...]
    error: str | None
    def __init__(self, index: int, request: tuple[Any, ...] | None, parent: Node | None, value: Any) -> None: ...
