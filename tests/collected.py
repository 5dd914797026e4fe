"""The last module that the process imports from which others are forked: what it has imported is not looked at again for garbage.

Each of those would otherwise look through all of it when it starts, as a worker does, and touch every page of memory that it shares.
"""

import gc

gc.collect()
gc.freeze()
