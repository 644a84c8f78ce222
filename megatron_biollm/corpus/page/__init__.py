"""The parts of the page that reports on a corpus: what each shows, and how it is drawn."""
