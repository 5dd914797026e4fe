"""What a pipeline needs besides records: reference tables, secrets, functions."""
