"""A Kinesis emulator that speaks the real protocol."""
