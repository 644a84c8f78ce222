"""One file for each kind of source: a path in, documents and a report out."""
