"""Scores on biomedical benchmarks: what is asked, how answers are judged, and how sure that is."""
