"""Kinds of base models; one file each, found by being here."""
