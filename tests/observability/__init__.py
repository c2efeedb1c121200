"""What watches the system: rules, dashboards and their provisioning, held against the code."""
