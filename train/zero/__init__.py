"""All that knows DeepSpeed: an upgrade of it is a change of this folder.

engine.py             what the trainer uses of its engine, and how the engine is built
config.py             its configuration, and the checks that this machine supports it
buffer_sizes.py       how much ZeRO gathers and reduces at once, from a model's shapes
mesh.py               the process group, this rank's device, its sequences and its slice of them
fake_group.py         a process group of ranks that do not exist, for a trace
rendezvous.py         how the ranks meet, within minutes
optimizer_step.py     micro-batches, the gradient norm, then the optimizer step or none
gradient_norms.py     norms of this rank's parts of the gradients
full_gradients.py     whole gradients of a small model, for proofs
params.py             parameters that ZeRO 3 partitions
overlap.py            the end of a backward pass whose reductions overlap with it
inference.py          a partitioned model that is only measured
reduce_scatter.py     ZeRO 3's reduction of many gradients at once
flat_params.py        where a parameter lies in the optimizer's flat tensors
checkpoint.py         its writer interface and the content of its files
sequence_parallel.py  its exchange of a sequence for heads
"""
