"""Batches: their API, their worker, and what they survive."""
