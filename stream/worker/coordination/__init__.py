"""What other workers and operators have decided, as this worker knows it: leases and pauses."""
