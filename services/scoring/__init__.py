"""What scoring needs, without HTTP: features, models, rules, decisions, and their hand-over."""
