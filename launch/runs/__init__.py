"""`ropewalk runs`: what stands in a folder of runs. A look: nothing is written.

listing.py   the runs of a folder, as rows, for a terminal and as JSON
reading.py   one run's folder to its row
files.py     the files of a run, as far as they can be read: records, and the end of metrics.jsonl
training.py  how far a training is
following.py the command to type next
sweeps.py    the sweeps of a folder, as rows too
page.py      whether the page shows the results that stand
"""
