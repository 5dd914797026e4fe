"""What a pipeline names and has written, opened: its stores, queues and tables, its log and its files."""
