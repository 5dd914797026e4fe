"""Single records: what became of one, and samples of what arrives."""
