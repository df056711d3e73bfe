"""Which documents the plan takes and how often, from the document tables alone.

overlong.py  Candidates: the usable documents of a source; `data.overlong`
offers.py    a source's settings -> its candidates and its bucketed source
shares.py    budgets of the sources; SamplingRounds -> Selection; the mixed order of all selections
supply.py    length limits, expected repeats; BucketedSource: a source in buckets of length
"""
