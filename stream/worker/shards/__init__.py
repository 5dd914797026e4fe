"""The shards of a worker: started, read, committed, given back, and finished where another worker left them."""
