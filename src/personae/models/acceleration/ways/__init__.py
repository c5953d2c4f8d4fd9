"""Quicker ways; one file each, found by being here."""
