"""What spoils a training set, found before training."""
