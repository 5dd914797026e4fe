"""What an operator changes while workers run: pauses, rewinds, skips, leases, positions taken over from another consumer."""
