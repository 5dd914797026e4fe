"""Shards one by one: what arrives in each, how far it is read, and by whom."""
