"""Less device memory for computation or transfers; applied to a model before the engine takes it.

activation_checkpointing.py  keep only each layer's input, and attention's output where it fits
kept_attention.py            attention's output, kept by torch's selective checkpointing
attention_budget.py          whether it fits, by arithmetic
offloaded_activations.py     what is kept, in host memory
copy_streams.py              the order of copies and computation
pinned_memory.py             host memory for these copies, in blocks of exact size
tiled_mlp.py                 compute the MLPs tile by tile
compile.py                   torch.compile of norms and MLPs
"""
