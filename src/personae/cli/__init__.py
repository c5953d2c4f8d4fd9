"""The command line: one file per command, found by itself; it holds no logic of its own."""
