"""A Kinesis that runs on this machine: the real protocol over HTTP, kept in memory, with time handed in.

``model`` and ``shards`` know streams, shards and sequence numbers and do no I/O; ``operations`` turn requests into
replies; ``protocol`` and ``eventstream`` are the wire; ``faults`` makes it misbehave by script; ``server`` listens.
"""
