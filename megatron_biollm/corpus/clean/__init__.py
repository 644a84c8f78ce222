"""Parts of the text-cleaning processors: each a pure function over one text."""
