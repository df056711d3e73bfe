"""LoRA by peft, injected into the live model in place; saved as whole tensors, merged at the end.

- `targets`: which linear layers get an adapter
- `attach`: injects it, with a seed that is the same on every rank
- `quantize`: 4-bit base weights (QLoRA)
- `merge`: the full weights with the adapter added
- `save`: the adapter in peft's own format
"""
