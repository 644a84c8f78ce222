"""Text from a live tensor- and pipeline-parallel model, and the log-probabilities it gives."""
