"""Hypernetwork files of other tools."""
