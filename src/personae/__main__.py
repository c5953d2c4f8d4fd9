"""The console script `personae`, also `python -m personae`."""

from __future__ import annotations

from personae.cli.app import run


def main() -> None:
    """Run the command line and end the process with its exit code."""
    raise SystemExit(run())


if __name__ == "__main__":
    main()
