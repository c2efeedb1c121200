"""Real processes under load, broken on purpose; afterwards the record must add up."""
