"""``python -m stream``."""

from stream.cli.main import app

app()
