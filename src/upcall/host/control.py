"""The supervisor's socket: `ctl` in the folder of the segment, for those who want it to stop, restart or scale.

One line of JSON asks: `{"do": "stop", "stop": "drain" | "now" | null}`, `{"do": "restart", "kill_after": SECONDS | null}`,
`{"do": "scale", "vcores": N, "keep": BOOL}`. Lines of JSON answer: what happens meanwhile, `{"vcore": ..., "pid": ...,
"says": ...}`, and at last `{"ok": {...}}` or `{"error": TEXT, "kind": CLASS}`.

The socket is a file like the segment, 0600 in a folder of 0700: who may send may ask. Nobody is waited for: what cannot be
read or written at once is waited for in the supervisor's loop, or dropped. A client that sends nothing costs a descriptor,
and there are at most CLIENTS_MAX; one that sends junk gets an error; one that is gone changes nothing in what it asked for.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from . import changes
from .changes import Line

if TYPE_CHECKING:
    from .supervisor import Supervisor

CLIENTS_MAX = 16
LINE_MAX = 4096
SECONDS_MAX = 1e6


def address(folder: int) -> str:
    """The socket's path by an open folder: a path of its own may be longer than the 108 bytes that an address has."""
    return f"/proc/self/fd/{folder}/ctl"


class Client:
    """Somebody who has connected, and what of a line has come."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.got = b""
        self.asked = False


class Control:
    """The server's end, in the supervisor's loop."""

    def __init__(self, of: Supervisor) -> None:
        self.of = of
        self.clients: list[Client] = []
        self.stopping: list[Client] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        folder = os.open(of.segment.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchmod(self.listener.fileno(), 0o600)  # the file that bind makes gets this mode
            with contextlib.suppress(FileNotFoundError):
                os.unlink("ctl", dir_fd=folder)  # a former supervisor's: we have its slot
            self.listener.bind(address(folder))
        finally:
            os.close(folder)
        self.listener.listen(CLIENTS_MAX)
        of.when_readable(self.listener, self._accept)

    def _accept(self) -> None:
        try:
            link, _ = self.listener.accept()
        except OSError:
            return  # gone again; or no descriptors left, and then nobody can be served
        link.setblocking(False)
        if len(self.clients) == CLIENTS_MAX:
            self._drop(next((c for c in self.clients if not c.asked), self.clients[0]))
        client = Client(link)
        self.clients.append(client)
        self.of.when_readable(link, functools.partial(self._read, client))

    def _read(self, client: Client) -> None:
        if client not in self.clients:
            return  # dropped since its readiness was seen
        try:
            data = client.link.recv(LINE_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        client.got += data
        if b"\n" in client.got and not client.asked:
            client.asked = True
            self._answer(client, client.got.partition(b"\n")[0])
        elif len(client.got) > LINE_MAX:
            self._end(client, {"error": f"a request has at most {LINE_MAX} bytes, in one line", "kind": "ValueError"})

    def _answer(self, client: Client, line: bytes) -> None:
        try:
            self._do(client, json.loads(line))
        except (ValueError, RecursionError) as error:
            self._end(client, {"error": f"cannot do {line[:80]!r}: {error}", "kind": "ValueError"})

    def _do(self, client: Client, request: Any) -> None:
        """Begins what is asked for. ValueError if it is nothing that can be."""
        of = self.of
        match request:
            case {"do": "stop", "stop": ("drain" | "now" | None) as how}:
                self.stopping.append(client)
                of.stop(how or of.proc.definition.stop)
            case {"do": "restart" | "scale"} if of.stop_as:
                raise ValueError("the process is being stopped")
            case {"do": "restart", "kill_after": (int() | float() | None) as after} if _seconds(after):
                of.changes.begin(changes.restart(of, after), functools.partial(self._say, client))
            case {"do": "scale", "vcores": int() as count, "keep": bool() as keep} if count >= 1 and count is not True:
                of.changes.begin(changes.scale(of, count, keep), functools.partial(self._say, client))
            case _:
                raise ValueError("not a request of this version")

    def _say(self, client: Client, line: Line) -> None:
        if "ok" in line or "error" in line:
            self._end(client, line)
        else:
            self._send(client, line)

    def _send(self, client: Client, line: Line) -> None:
        data = json.dumps(line).encode() + b"\n"
        try:
            sent = client.link.send(data) if client in self.clients else len(data)
        except OSError:
            sent = 0
        if sent < len(data):
            self._drop(client)  # gone, or does not read

    def _end(self, client: Client, line: Line) -> None:
        self._send(client, line)
        self._drop(client)

    def _drop(self, client: Client) -> None:
        if client in self.clients:
            self.clients.remove(client)
            self.of.selector.unregister(client.link)
            client.link.close()

    def tell_stopping(self, line: Line) -> None:
        """What happens in a stop."""
        for client in self.stopping:
            self._send(client, line)

    def close(self) -> None:
        """No more requests; those who wait for a stop still hear of its end. While the segment is attended: its folder is
        ours."""
        self.of.selector.unregister(self.listener)
        with contextlib.suppress(OSError):
            os.unlink(self.of.segment.path / "ctl")
        self.listener.close()
        for client in [client for client in self.clients if client not in self.stopping]:
            self._drop(client)

    def tell_stopped(self, removed: bool, left: str) -> None:
        """The stop has come to its end, and everything is let go."""
        for client in [client for client in self.stopping if client in self.clients]:
            with contextlib.suppress(OSError):
                client.link.send(json.dumps({"ok": stopped(removed, left)}).encode() + b"\n")
            client.link.close()
        self.clients.clear()

    def close_in_child(self) -> None:
        """In a forked worker: a socket that lives on in it would take requests for a supervisor that is gone."""
        self.listener.close()
        for client in self.clients:
            client.link.close()


def _seconds(value: float | None) -> bool:
    """Whether it is a time that can be waited for, or none."""
    return value is None or (not isinstance(value, bool) and 0 <= value <= SECONDS_MAX)


def stopped(removed: bool, left: str) -> Line:
    """What a stop has come to: the segment is removed, or stays with what is left in it."""
    return {"removed": removed, "left": left}
