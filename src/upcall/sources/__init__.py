"""Sources: what the kernel would have sent, as events: alarms, taps of descriptors, ends of processes, blocking calls.

Here is what programs use; who attends the sources is in `host/sources`, their records are `kern/source`.
"""

from __future__ import annotations

from .alarm import Alarm
from .tap import Tap
from .watch import Watch

__all__ = ["Alarm", "Tap", "Watch"]
