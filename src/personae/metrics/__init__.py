"""What can be measured on pictures of a character: one file each, found by `registry.discover`."""
