"""From a character to an artifact: one loop, its data, loss, optimisers and memory."""
