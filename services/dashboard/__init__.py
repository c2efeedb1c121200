"""The dashboard: pages for deciding, looking up and comparing."""
