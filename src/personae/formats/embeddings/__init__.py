"""Embedding files of other tools."""
