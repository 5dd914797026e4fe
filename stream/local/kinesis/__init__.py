"""An emulator of Kinesis: the real protocol over HTTP, state in memory, and a clock that is passed in.

``model`` and ``shards`` hold streams, shards and sequence numbers and do no I/O; ``operations`` turn requests into
replies; ``protocol`` and ``eventstream`` are the wire formats; ``faults`` injects scripted faults; ``server`` listens.
"""
