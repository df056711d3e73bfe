"""LoRA by peft, injected into the live model in place; saved as whole tensors, merged at the end.

targets.py   which linear layers get an adapter
attach.py    injects it, with a seed that is the same on every rank
dropout.py   its dropout, drawn by sequence and token
quantize.py  4-bit base weights (QLoRA)
merge.py     the weights with the adapter added, layer by layer
save.py      the adapter in peft's own format
"""
