"""What a worker reads: the source of each kind of run, and the dead letters that may be read again."""
