"""Objects in S3 as a source: who lists them, who reads which, and what has been read."""
