"""The state of a pipeline: read, judged, and explained, for `stream status`."""
