"""Tests of the history service, on real PostgreSQL and Redis servers."""
