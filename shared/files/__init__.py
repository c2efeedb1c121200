"""Files of applications as people have them: one reader for everything that takes a file."""
