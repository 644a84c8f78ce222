"""Decontamination: the items of benchmark files are found in training texts and taken out."""
