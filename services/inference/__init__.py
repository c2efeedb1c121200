"""The inference service: an application in, a recorded decision out."""
