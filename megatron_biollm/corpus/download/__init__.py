"""Official sources to local files: resumable, checksummed, polite, with the licence of each."""
