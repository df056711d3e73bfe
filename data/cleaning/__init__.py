"""Duplicates, and held-out text in the training text."""
