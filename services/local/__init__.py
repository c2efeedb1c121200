"""``make run``: the whole system on one machine, on embedded PostgreSQL and Redis."""
