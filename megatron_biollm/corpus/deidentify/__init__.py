"""Identifiers of patients in clinical notes: found, replaced, audited, measured."""
