"""Emulates AWS on this machine, for laptops and tests."""
