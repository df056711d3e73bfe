"""Checkpoints: copied to host memory between two steps, written beside the training, published only when whole.

writer.py    DeepSpeed's checkpoint engine: host copies, and the thread that writes, hashes and syncs them
folder.py    what lies on disk: which folders are whole, what must match, how one is published and which are removed
fragments.py where each parameter lies in the optimizer's flat tensors
trained.py   what is frozen is left out
elastic.py   a checkpoint read by name into another world size, sp_size or ZeRO stage
keeper.py    all of it as the loop uses it
"""
