"""From pictures to scores."""
