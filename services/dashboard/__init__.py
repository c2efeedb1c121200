"""The dashboard: the pages on which people decide, look things up and compare."""
