"""What the services share: the wire contract and plumbing without a domain word."""

import gc

USUAL_THRESHOLDS = gc.get_threshold()
"""When Python looks for garbage unless it is told otherwise."""

# What a process makes while it starts stays: looking for garbage in it takes a tenth of the start.
gc.set_threshold(100_000)
