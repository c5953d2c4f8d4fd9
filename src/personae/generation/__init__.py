"""From a cast and prompts to pictures, and the recipes inside them."""
