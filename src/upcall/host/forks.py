"""What becomes of a forked child of an attached process.

The machine layer takes mapping, files and liveness locks from it (`front/port.Attachment`), the API answers ForkedHandle.
Here is the rest: it is not its parent's worker, so it does not obey its parent's signals, and when it comes out of the
handler in which it was forked it ends, instead of going on as a second host of the same vcore.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NoReturn

_handlers: dict[int, Any] = {}
_blocked: set[int] = set()
_masks = threading.local()
_wake = SimpleNamespace(fd=-1)


def on_signal(number: int, handler: Callable[[int, Any], object]) -> Any:
    """Installs a signal handler that a forked child does not inherit: there the signal has its default effect. Returns
    the former handler."""
    former = signal.signal(number, handler)
    _handlers[number] = handler
    return former


def unblock_in_child(numbers: Iterable[int]) -> None:
    """Signals that this process blocks, and a forked child does not."""
    _blocked.update(numbers)


def wake_by(fd: int) -> None:
    """Signals to the main thread write into this pipe of ours; not those to a forked child. -1: no longer."""
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    _wake.fd = fd


def _before() -> None:
    # A signal to the child, sent before it has its own ways, would run its parent's handler, or be forgotten.
    _masks.former = signal.pthread_sigmask(signal.SIG_BLOCK, _handlers)


def _in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.former)


def _in_child() -> None:
    for number, handler in _handlers.items():
        if signal.getsignal(number) == handler:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _handlers.clear()
    if _wake.fd >= 0:
        wake_by(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.former - _blocked)
    _blocked.clear()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def end_child(who: str, error: BaseException | None) -> NoReturn:
    """Ends a forked child that has returned to the code of its parent, or raised. `sys.exit` is taken at its word; else
    it says on stderr what happened. No finalizers run: what they would finish is the parent's."""
    code = 1
    with contextlib.suppress(BaseException):
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if not isinstance(error.code, int | None):
                print(error.code, file=sys.stderr)
        else:
            if error is not None:
                traceback.print_exception(error)
            print(
                f"upcall: {who}: process {os.getpid()}, a forked child of this worker, came out of the code in which it "
                "was forked: it ends here, the worker goes on. End it there, with os._exit, or use multiprocessing",
                file=sys.stderr,
            )
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def run_child(function: Callable[[], int]) -> NoReturn:
    """A forked child's whole life, and its end."""
    code = 1
    try:
        code = function()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if not isinstance(error.code, int | None):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
