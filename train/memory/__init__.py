"""Less device memory for computation or transfers; applied to a model before the engine takes it.

activation_checkpointing.py  keep only each layer's input, on the device or in host memory
tiled_mlp.py                 compute the MLPs tile by tile
compile.py                   torch.compile of norms and MLPs
"""
