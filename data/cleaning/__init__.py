"""Deduplication, and decontamination of training text from held-out text, on the tokens of stores.

clean.py          runs both as the settings say and caches what they find
duplicates.py     exact and near duplicates of earlier documents
minhash.py        MinHash signatures, by which near duplicates are found
contamination.py  n-grams that training and held-out documents share
ngrams.py         hashes of n-grams
"""
