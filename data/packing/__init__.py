"""Lengths -> sequences: the packers, and the plan that is written."""
