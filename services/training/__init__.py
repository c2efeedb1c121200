"""Offline training: a labelled CSV in, a verified bundle of models out."""
