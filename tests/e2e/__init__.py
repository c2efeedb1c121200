"""The whole system, as its processes."""
