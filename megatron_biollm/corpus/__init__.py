"""Raw sources in, clean documents out."""
