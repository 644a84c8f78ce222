"""The benchmarks: a reader of the files as published, a prompt and a scorer each."""
