"""Ways to teach a base one character; one file each, found by being here."""
