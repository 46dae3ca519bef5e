"""Observation: records, and the places they are written to."""
