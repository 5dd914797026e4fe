"""For people who write components."""
