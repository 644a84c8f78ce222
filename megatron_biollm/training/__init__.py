"""One step, many times."""
