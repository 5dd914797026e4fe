"""SQL over what a pipeline has produced, sealed or not."""
