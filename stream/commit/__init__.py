"""Exactly once: the commit log and the protocol that writes it."""
