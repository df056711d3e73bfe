"""From the plan to the micro-batches of a rank.

packed.py      PackedSequences: a sequence by number; DataArtifacts: where a run's data lies
collate.py     Row; pieces -> one sequence, sequences -> a micro-batch
loader.py      BatchLoader: which sequences a step and a rank read; prefetch reads ahead
pose.py        skipped positions (PoSE)
"""
