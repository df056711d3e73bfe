"""Which documents the plan takes and how often, from the document tables alone.

lengths.py   rules by document length: which documents a range holds, expected repeats
overlong.py  Candidates: the usable documents of a source; `data.overlong`
offers.py    a source's settings -> its candidates and its bucketed source
shares.py    budgets of the sources; SamplingRounds -> Selection; the mixed order of all selections
supply.py    BucketedSource: a source's documents in buckets of length
"""
