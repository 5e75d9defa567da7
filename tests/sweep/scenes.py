"""All scenes."""

from __future__ import annotations

from sweep import letters, owners, senders, unlink, vcores

SCENES = [*senders.SCENES, *vcores.SCENES, *owners.SCENES, *letters.SCENES, *unlink.SCENES]
