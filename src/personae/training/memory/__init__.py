"""What a training needs, forecast and kept within a limit."""
