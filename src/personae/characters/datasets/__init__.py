"""Layouts of training sets; one file each, found by being here."""
