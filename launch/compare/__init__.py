"""`ropewalk compare`: several runs, or several models of one evaluation, in one table and one page.

command.py     what the verb does; `compare_runs`, which a sweep ends in
reading.py     run folders to the models that are compared; what cannot be compared is refused
samples.py     the kept samples of a model, by the digest of what it was asked
measures.py    a value of each sample, for each measure
pairs.py       the difference of two models, sample by sample where they share them
comparison.py  every measure of every model beside the baseline's
facts.py       what is equal in all models, and what differs
tables.py      rows for `--json`, and the table for a terminal
page.py        the page
"""
