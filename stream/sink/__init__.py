"""Batches out: rows to files, purely."""
