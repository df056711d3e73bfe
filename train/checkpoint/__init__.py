"""Checkpoints: copied to host memory between two steps, written while training goes on, published
only when complete. They hold trained weights only, so an adapter's checkpoint is as small as it is.

checkpointer.py    everything below, as the trainer uses it
async_writer.py    the copy to host memory, and the thread that writes, hashes and syncs the files
storage.py         the folder of checkpoints: which are complete or damaged, publishing, pruning
reshard.py         reads a checkpoint by parameter name into another world size or ZeRO stage
previous_phase.py  optimizer state and position in the data from earlier phases
"""
