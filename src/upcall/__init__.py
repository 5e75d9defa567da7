"""upcall: lossless event delivery to many-core Python processes on Linux.

    import upcall

    proc = upcall.Proc("ingest", vcores=4)
    orders = proc.queue("orders")

    @proc.on("order.created")
    def created(ev: upcall.Event) -> None:
        print(f"vcore {ev.vcore} took {bytes(ev.payload)!r}")

    if __name__ == "__main__":
        proc.run()

and, from any other process, `upcall.connect("ingest").queue("orders").send("order.created", b"...")`.

The promises (G1 to G12) are in docs/contract.md.
"""

from __future__ import annotations

from ._life import check_compiled

check_compiled()

TYPE_CHECKING = False  # typing's, without importing typing
if TYPE_CHECKING:
    from .executor import Executor

from .errors import (  # noqa: E402
    FlagError,
    ForkedHandle,
    MailboxBusy,
    MailboxFull,
    NameInUse,
    NoSuchProcess,
    NoSuchQueue,
    NoSuchType,
    ProcessGone,
    SegmentError,
    UpcallError,
    VCoreIdError,
    WorkerDied,
)
from .flags import EventFlag, EventType, Ready  # noqa: E402
from .front.event import Event, EventBatch  # noqa: E402
from .host.dead import DeadLetter  # noqa: E402
from .proc import Proc  # noqa: E402
from .queue import Queue, VCore  # noqa: E402
from .remote import Remote, connect  # noqa: E402
from .sources import Alarm, Tap, Watch  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "Alarm",
    "DeadLetter",
    "Event",
    "EventBatch",
    "EventFlag",
    "EventType",
    "Executor",
    "FlagError",
    "ForkedHandle",
    "MailboxBusy",
    "MailboxFull",
    "NameInUse",
    "NoSuchProcess",
    "NoSuchQueue",
    "NoSuchType",
    "Proc",
    "ProcessGone",
    "Queue",
    "Ready",
    "Remote",
    "SegmentError",
    "Tap",
    "UpcallError",
    "VCore",
    "VCoreIdError",
    "Watch",
    "WorkerDied",
    "connect",
]


def __getattr__(name: str) -> object:
    """`Executor` and `aio`, imported at their first use: `concurrent.futures` and asyncio take their time."""
    if name == "Executor":
        from .executor import Executor

        return Executor
    if name == "aio":
        import importlib

        return importlib.import_module(".aio", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
