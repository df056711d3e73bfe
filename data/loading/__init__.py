"""The plan as the trainer takes it: rows, by step and rank."""
