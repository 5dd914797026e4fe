"""The process of a worker: its memory and credentials, what its log says when it blocks or fails, the result of its run."""
