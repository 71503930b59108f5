"""Readers of the locks that Python's tools write: exact pins, for the sandbox's Python."""
