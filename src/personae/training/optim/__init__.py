"""Optimisers, rates, and number formats of what is trained."""
