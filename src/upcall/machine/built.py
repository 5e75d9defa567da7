"""What this build was made from: the hash that `upcall._life` compares with the sources beside the compiled modules."""

import cython

if not cython.compiled:
    UPCALL_SOURCE_HASH = b""


def source_hash() -> str:
    """The hash of the protocol's sources at the time of compilation; empty in the interpreted life."""
    return UPCALL_SOURCE_HASH.decode("ascii")
