"""Messages with descriptors, between whoever has a tap's descriptor and the watcher (host/sources, host/passing)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

from .linux import open_other_end

MESSAGE_MAX = 4096
SUPERVISOR_SOCKET, STANDBY_SOCKET = "sources", "sources-standby"
"""Two names, since a worker that watches may overlap with the next supervisor: each has one holder at most."""


def listen(folder: Path, name: str) -> socket.socket:
    """A socket beside the segment. Only who has the role of that name makes it: what is there is a dead one's."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchmod(listener.fileno(), 0o600)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=at)
        # In place when it listens: who sees it appear can connect.
        draft = f"draft-{os.getpid()}-{os.urandom(4).hex()}"
        listener.bind(f"/proc/self/fd/{at}/{draft}")
        listener.listen(128)
        os.rename(draft, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(at)
    return listener


def dial(folder: Path, name: str) -> Link | None:
    """A connection to the one who listens, with its pidfd; None if nobody does."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    at = -1
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        link.connect(f"/proc/self/fd/{at}/{name}")
        end = open_other_end(link)
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
        link.close()
        return None
    except BaseException:
        link.close()
        raise
    finally:
        if at >= 0:
            os.close(at)
    return Link(link, end)


class Link:
    """One end: dicts as JSON, each with its descriptors. Never waits. `end`: a pidfd of the other one, or -1."""

    def __init__(self, link: socket.socket, end: int = -1) -> None:
        self.link = link
        self.end = end
        link.setblocking(False)
        credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid = int(struct.unpack("3i", credentials)[0])

    def fileno(self) -> int:
        """Of the socket."""
        return self.link.fileno()

    def send(self, said: dict[str, Any], *fds: int) -> None:
        """OSError if the other is gone, or does not read (BlockingIOError)."""
        socket.send_fds(self.link, [json.dumps(said).encode()], list(fds))

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message, its descriptors ours; None if there is none now. ConnectionError at the end; what is no
        message is an empty one."""
        try:
            data, fds, _, _ = socket.recv_fds(self.link, MESSAGE_MAX, 4)
        except BlockingIOError:
            return None
        for fd in fds:
            os.set_inheritable(fd, False)
        if not data:
            for fd in fds:
                os.close(fd)
            raise ConnectionResetError
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            said = {}
        return said if isinstance(said, dict) else {}, fds

    def close(self) -> None:
        """Closes it."""
        self.link.close()
        if self.end >= 0:
            os.close(self.end)
