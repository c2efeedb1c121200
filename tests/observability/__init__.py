"""Rules, dashboards and their provisioning, checked against the code."""
