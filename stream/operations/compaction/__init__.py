"""Many small files become few large ones, for `stream compact`."""
