"""Tests that hold both services to the events between them."""
