"""Networks that draw: families, their weights, quicker ways to compute them."""
