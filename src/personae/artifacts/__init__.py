"""What was learnt, in one file, and algebra on it."""
