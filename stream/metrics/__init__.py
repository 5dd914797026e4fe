"""Counters, health and logs, made from events."""
