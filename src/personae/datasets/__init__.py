"""The ways people lay out pictures and captions for a trainer, one module each."""
