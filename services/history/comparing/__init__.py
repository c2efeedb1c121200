"""Decisions on record beside what shadows, or another rule, would have decided."""
