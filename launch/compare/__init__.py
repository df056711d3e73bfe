"""`ropewalk compare`: several runs, or several models of one evaluation, in one table and one page.

command.py     what the verb does; `compare_runs`, which a sweep ends in
sweeps.py      the folder of a sweep in the stead of its runs
reading.py     run folders to the models that are compared; what cannot be compared is refused
samples.py     the kept samples of a model, by the digest of what it was asked
measures.py    a value of each sample, for each measure
pairs.py       the difference of two models, sample by sample where they share them
groups.py      seeds of one configuration: their spread, and which runs are partners
pareto.py      what a longer window is worth, costs and took
published.py   published values of the same protocol
comparison.py  every measure of every model beside the baseline's
facts.py       what is equal in all models, and what differs
tables.py      rows for `--json`, and the table for a terminal
figures.py     its drawings
page.py        the page
"""
