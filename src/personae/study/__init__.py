"""Many trainings, and what their comparison says."""
