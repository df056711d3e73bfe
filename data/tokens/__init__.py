"""Documents -> tokens, written once: shards that any process may make, merged into one store.

encode.py       texts -> token ids on several threads, in the order of the documents
locate.py       tokens with the characters and words that they are made of
given_ids.py    token ids that a source gives: cut into documents, held against the tokenizer
long_texts.py   cuts long texts into parts whose tokens join to those of the full text
write.py        a shard's files, written as the documents come
shards.py       the borders of shards, and which of them a task makes
text_store.py   makes, verifies and merges the shards of a text source
merge.py        the shards' tables -> the store's table, without repeated ids
store.py        a finished store, memory-mapped; held-out documents; BOS and EOS around documents
corpus.py       the stores of several sources as one list of documents
arrow_table.py  Arrow tables without pandas
"""
