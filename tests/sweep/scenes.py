"""All scenes."""

from __future__ import annotations

from sweep import senders

SCENES = [*senders.SCENES]
