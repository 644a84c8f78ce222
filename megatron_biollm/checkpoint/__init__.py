"""State to disk: save, load into any layout, keep, verify, stream."""
