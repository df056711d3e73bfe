"""Documents -> training sequences.

stage.py            the data stage: sources -> token stores -> cleaning -> plan -> ledger
prepared.py         its result before it has a place in a run's folder
mixture.py          the sources as a plan draws from them, and what decides the plan
planning.py         joins mixing, packing and the ledger
dataset.py          the public face for training and evaluation
heldout.py          held-out text, laid out as training documents are
export.py           the plan as a Hugging Face dataset or parquet files
hash_random.py      a seeded hash as randomness
random_streams.py   the random numbers of every other draw, a stream for each purpose
proportion.py       the interval of a share
synthetic.py        stores of synthetic sources
train_tokenizer.py  train a tokenizer on the sources
datatrove_step.py   shards of token stores as a datatrove pipeline step
sources/ tokenizer/ tokens/ cleaning/ mixing/ packing/ loading/ ledger/
retrieval/ (questions about a hidden fact)
"""
