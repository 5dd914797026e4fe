"""Who works on which shard."""
