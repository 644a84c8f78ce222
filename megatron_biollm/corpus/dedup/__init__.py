"""Near-duplicates and contained documents: found in stages that share the work by shard or hash."""
