"""What AWS must allow a pipeline, and what the policies of its roles say."""
