"""What may be set: the dataclasses, their checks, and the YAML that chooses values. Imported by all, imports none."""
