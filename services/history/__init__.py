"""The history service: every decision kept, told back as records and as statistics."""
