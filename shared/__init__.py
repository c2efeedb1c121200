"""What the services share: the wire contract and plumbing without a domain word."""

import gc

USUAL_THRESHOLDS = gc.get_threshold()
"""When Python looks for garbage unless it is told otherwise."""

# Almost everything that a process creates while it starts stays, and looking for garbage in it
# takes a tenth of the start. Servers restore the usual thresholds once they have loaded.
gc.set_threshold(100_000)
