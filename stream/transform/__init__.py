"""The engine: columns in, columns out, purely."""
