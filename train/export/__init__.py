"""The export stage: one trained model, in the words that each server reads, with what each of them makes of it."""
