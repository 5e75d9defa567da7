"""The process that dies: forked from the server, attached on its own, and killed or stopped by itself."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from sweep.host import Host
from sweep.ledger import Ledger
from sweep.page import Page
from sweep.parent import end_with_parent
from upcall.host.handle import Handle
from upcall.host.segment import Segment, open_segment
from upcall.kern import const

HANG_S = 20
"""How long an operation may take. Those that wait are woken by the server."""
READERS = {
    "u32", "u64", "text", "_word", "types", "queues", "check", "check_name", "_check_text", "read_geometry", "folder",
    "refresh", "seg", "<dictcomp>", "<genexpr>", "<listcomp>", "is_locked", "attached", "parse_size", "names",
    "_header", "leads_to", "is_in_place",
}  # fmt: skip
"""Functions of the host layer that write nothing: dying in them is no different from dying before or behind them."""


class Victim:
    """What a scene's `act` works with. It gets ready, calls `arm`, and does what is swept."""

    def __init__(self, scene: Any, page: Page, ledger: Ledger, name: str) -> None:
        self.scene, self.page, self.ledger, self.name = scene, page, ledger, name
        self.next = 1 + 64
        self._segment: Segment | None = None
        self._handle: Handle | None = None

    def arm(self) -> None:
        """Every step counts from now on."""
        if self.scene.lines:
            sys.settrace(self._trace)
        self.page.arm()

    def disarm(self) -> None:
        self.page.disarm()
        sys.settrace(None)

    def _trace(self, frame: FrameType, kind: str, arg: object) -> Callable[..., Any] | None:
        """Lines of the host layer are steps too, where a scene says so: its writes are not the machine layer's."""
        code = frame.f_code
        if not code.co_filename.endswith(self.scene.lines) or code.co_name in READERS:
            return None
        self.page.step(os.path.basename(frame.f_code.co_filename), frame.f_lineno)
        return self._trace

    # ---- what victims are --------------------------------------------------------------------------------------------

    @property
    def segment(self) -> Segment:
        if self._segment is None:
            self._segment = open_segment(self.name)
        return self._segment

    @property
    def handle(self) -> Handle:
        if self._handle is None:
            self._handle = Handle(self.segment, may_register=True)
        return self._handle

    def sender(self) -> Any:
        """Its sender for the scene's queue."""
        return self.handle.sender(self.handle.queues.get("queue", 0))

    def send(self, *sizes: int) -> None:
        """Sends one event for each size; each counts as sent when its `send` has returned."""
        for size in sizes or (16,):
            self.next += 1
            self.scene.send(self.sender(), self.handle.vcore_sender(), self.ledger, self.next - 1, size)

    def host(self, vcoreid: int = 0) -> Host:
        """Becomes the host of a vcore; it has not entered yet."""
        seg = self.segment.attach(const.ROLE_VCORE)
        found = Host(self.segment, seg, vcoreid, self.ledger, victim=True)
        self.scene.register(found, self.handle.resolve("event"))
        return found


class Fate:
    """What has become of a victim."""

    def __init__(self, pid: int, status: int, ledger: Ledger) -> None:
        self.pid, self.ledger = pid, ledger
        self.stopped = os.WIFSTOPPED(status)
        self.ended = self.killed = False
        if not self.stopped:
            self._judge(status)

    def _judge(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        assert code != -signal.SIGALRM, "the operation hangs"
        assert code in (0, -signal.SIGKILL), f"the victim ended with {code}: {self.ledger.said}"
        self.ended, self.killed = code == 0, code != 0

    def go_on(self) -> None:
        """A stopped victim continues to the end of its operation."""
        os.kill(self.pid, signal.SIGCONT)
        self._judge(os.waitpid(self.pid, 0)[1])
        assert self.ended
        self.stopped = False


def strike(scene: Any, page: Page, ledger: Ledger, name: str, meanwhile: Callable[[int], int | None]) -> Fate:
    """Forks a victim, and returns when it has died, stopped or ended. `meanwhile` is called with its pid while it may wait
    for others; it returns the victim's status if it has learned it."""
    pid = os.fork()
    if pid == 0:
        _live(scene, page, ledger, name)
    status = meanwhile(pid)
    if status is None:
        status = os.waitpid(pid, os.WUNTRACED)[1]
    return Fate(pid, status, ledger)


def _live(scene: Any, page: Page, ledger: Ledger, name: str) -> None:
    code = 1
    try:
        end_with_parent(signal.SIGKILL)
        signal.alarm(HANG_S)
        victim = Victim(scene, page, ledger, name)
        scene.act(victim)
        victim.disarm()
        code = 0
    except BaseException:
        ledger.say(traceback.format_exc())
    finally:
        os._exit(code)
