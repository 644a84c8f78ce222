"""What `tools/benchmark.py` measures: one file for each of its commands, and what they share."""
