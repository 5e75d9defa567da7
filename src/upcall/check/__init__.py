"""The checker's side of "one source, several lives": the protocol's own files, loaded again as ordinary Python."""
