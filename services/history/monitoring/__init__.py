"""Whether the models still hold: live performance, drift, fairness, and the report on them."""
