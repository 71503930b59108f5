"""Readers of what authors write down: each of Python's manifests, and the choice between them."""
