"""Which documents the plan takes and how often, from the document tables alone.

overlong.py     Candidates: the usable documents of a source; `data.overlong`
offers.py       a source's settings -> its candidates and its bucketed source
shares.py       budgets of the sources
rounds.py       SamplingRounds: the takings of documents -> Selection
supply.py       length limits, expected repeats; BucketedSource: a source in buckets of length
mixed_order.py  the mixed order of all takings, in blocks
"""
