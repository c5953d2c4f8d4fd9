"""Where weights come from, and how they are held in memory."""
