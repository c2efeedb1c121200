"""What became of the loans: reported, kept, and counted."""
