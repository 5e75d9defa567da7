"""A chat for telnet that goes on when its workers are killed.

    python examples/chat.py 7000
    telnet localhost 7000               # as often as you like

The listening socket and each connection are tapped. Whichever of the three workers is free handles what is said, and every
worker can write to everybody: the connections are the process's and no worker's.
"""

import contextlib
import os
import socket
import sys

import upcall

proc = upcall.Proc("chat", vcores=3)
room = proc.queue("room")


def say(text: str) -> None:
    """Tells everybody. Who does not read misses it; who has gone is found out by his own tap."""
    for tap in proc.taps("guest"):
        with contextlib.suppress(BlockingIOError, ConnectionError, ValueError):
            os.write(tap.fileno(), text.encode())


@contextlib.contextmanager
def as_socket(tap: upcall.Tap):
    """The tap's descriptor with the methods of a socket; it stays the tap's."""
    link = socket.socket(fileno=tap.fileno())
    try:
        yield link
    finally:
        link.detach()


@proc.on_tap("door")
def knock(door: upcall.Tap) -> None:
    with as_socket(door) as listener, contextlib.suppress(BlockingIOError):
        link, address = listener.accept()
        with link:  # the tap has a copy
            link.setblocking(False)
            proc.tap(link, queue=room, type="guest", value=address[1])
        say(f"* {address[1]} is here\n")


@proc.on_tap("guest")
def talk(guest: upcall.Tap) -> None:
    with as_socket(guest) as link:
        try:
            text = link.recv(4096, socket.MSG_PEEK)
        except ConnectionError:
            text = b""
        if text:
            say(f"{guest.value}: {text.decode(errors='replace').strip()}\n")
            link.recv(len(text))  # only now: if we die before, another worker says it
    if not text:
        guest.close()
        say(f"* {guest.value} has left\n")


if __name__ == "__main__":
    with socket.create_server(("localhost", int(sys.argv[1]))) as listener:
        listener.setblocking(False)
        proc.tap(listener, queue=room, type="door")
    proc.run()
