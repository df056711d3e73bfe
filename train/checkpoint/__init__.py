"""Checkpoints: copied to host memory between two steps, written while training goes on, published
only when complete.

async_writer.py    the copy to host memory, and the thread that writes, hashes and syncs the files
storage.py         the folder of checkpoints: what is complete or damaged, publishing, pruning
trainable_only.py  frozen weights are left out reshard.py         read a checkpoint by parameter
name into another world size, sp_size or ZeRO stage checkpointer.py    all of it, as the trainer
uses it previous_phase.py  optimizer state and position in the data from earlier phases
"""
