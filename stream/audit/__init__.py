"""What happened to every record."""
