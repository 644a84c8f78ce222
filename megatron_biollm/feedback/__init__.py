"""Experts compare answers on a small web page; what they said becomes preference data."""
