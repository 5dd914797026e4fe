"""What a worker sends out beside its data: spans of records and of its own operations, lineage, messages to people."""
