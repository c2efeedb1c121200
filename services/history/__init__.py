"""The history service: stores every decision, serves records and statistics."""
