"""Halted shards: when too many dead letters halt one, and the note beside the log that says why it stands still."""
