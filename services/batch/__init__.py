"""Files of applications, decided in the background: an API, and the worker that does the work."""
