"""How far a pipeline is, according to its log, its stream and its load ledgers, without asking a worker."""
