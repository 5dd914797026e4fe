"""Loads of sealed units into Redshift and Iceberg tables."""
