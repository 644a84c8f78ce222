"""Where rooms meet: each recipe is one way to train."""
