"""Files of other tools; one format per file, found by being here."""
