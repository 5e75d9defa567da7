"""All scenes."""

from __future__ import annotations

from sweep import letters, senders

SCENES = [*senders.SCENES, *letters.SCENES]
