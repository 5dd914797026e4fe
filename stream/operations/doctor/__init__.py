"""Checks, before a worker starts, of everything that it will need, for `stream doctor`."""
