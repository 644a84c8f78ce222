"""Token ids on disk to training batches, in an order that depends on the seed alone."""
