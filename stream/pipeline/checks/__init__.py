"""What is wrong with a pipeline file, found before anything runs."""
