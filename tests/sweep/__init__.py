"""The exhaustive death sweep: the compiled code is killed, or stopped, before its first, second, third ... access.

A package is built whose machine layer counts accesses to shared memory and to the world, and sends its own process
SIGKILL or SIGSTOP before the one that it is told (`machine/upcall_deaths.h`; `build`). A server (`server`) runs on that
package, with a small segment of its own. For each scene and for n = 1, 2, 3 ... until the operation comes to its end, it

- puts the segment into the scene's first state (`world`),
- forks a victim, which attaches, gets ready, and does the operation; it dies or stops before its n-th access,
- plays the others: vcores that do what their hosts would do, and no more; a sender; the supervisor,
- compares what was sent and what was handled (`ledger`), and looks for what is left over.

It goes on beside a run's other tests, on processors that these leave idle (`beside`, `run`, `client`).

`senders`, `vcores`, `owners` and `letters` are the scenes. The host layer's own writes, which are made by Python and not by
the machine layer, are swept line by line.
"""
