"""Objects with compare-and-swap: S3, a directory, memory."""
