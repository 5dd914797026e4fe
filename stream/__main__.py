"""``python -m stream``."""

from stream.cli.process import command

command()
