"""Kinesis to S3 and Redshift, exactly once."""

__version__ = "0.1.0"
