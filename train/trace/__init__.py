"""A training step traced on an accelerator that does not exist.

rules.py  which operations make the host wait for the device
"""
