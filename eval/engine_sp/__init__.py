"""One model that answers requests over the ranks that share a sequence (`eval.sp_size`).

A forward pass is the trainer's: each rank has a slice of the row, and attention exchanges heads
or keys (train/attention/ulysses.py). It leaves each rank with its keys and values, from which
decoding goes on: a query attends to each rank's part, and the outputs are merged by their
log-sum-exp.

engine.py  the engine: rows, verdicts, decoding
rows.py    documents of one pass, and a rank's slice of them; no ranks
shards.py  keys and values of a pass in parts on the ranks, and attention over them
"""
