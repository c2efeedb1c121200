"""Numbers as people read them, and pictures of them: drawn by the server, without a script."""
