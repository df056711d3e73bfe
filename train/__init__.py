"""Rope plan, model, attention, loss and the DeepSpeed loop."""
