"""What the services share: the wire contract and plumbing without a domain word."""

import gc

USUAL_THRESHOLDS = gc.get_threshold()
"""When Python looks for garbage unless it is told otherwise."""

# Almost everything that a process creates while it starts stays, and each look for garbage in it
# takes 20 ms or more. The largest process creates 300,000 objects until it is ready.
gc.set_threshold(500_000)


def keep_loaded(*thresholds: int) -> None:
    """Never scan for garbage what exists now; for what comes later, do so at ``thresholds``."""
    gc.freeze()
    gc.set_threshold(*thresholds)
