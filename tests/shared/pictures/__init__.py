"""Tests of what pictures are drawn with."""
