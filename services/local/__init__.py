"""The whole system on one machine, on embedded real servers."""
