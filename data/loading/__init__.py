"""From the plan to the micro-batches of a rank.

packed.py      PackedSequences: a sequence by number; DataArtifacts: where a run's data lies
collate.py     Row; pieces -> one sequence, sequences -> a micro-batch
loader.py      BatchLoader: which sequences a step and a rank read
balance.py     attention work, dealt evenly to the data-parallel groups
label_mask.py  context-only sources
pose.py        skipped positions (PoSE)
prefetch.py    reads ahead in a thread
"""
