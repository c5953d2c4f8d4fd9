"""Networks that look at pictures; they do not know why."""
