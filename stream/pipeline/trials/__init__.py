"""Pipelines on records given by hand: test cases, previews, comparisons."""
