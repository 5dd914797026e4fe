"""Runs a pipeline's own workers against a stream and stores that fail in every way, in virtual time: see docs/simulate.md."""
