"""What a run's manifest.json binds, `ropewalk reproduce` and `ropewalk pack`.

code.py         commit, changes and digest of Ropewalk's own code
packages.py     every installed package with its version and build
environment.py  torch's build, hardware, variables and flags that change numbers
settings.py     all settings as plain values, without the user's folders
inputs.py       base, tokenizer and documents by their content
results.py      what a run computed: hashes, losses, values
evidence.py     a manifest and what lies beside it, from a run's folder or a pack
compare.py      whether two runs computed the same, and the first thing that differs
spread.py       how far runs that differ in the seed alone lie apart
rerun.py        the settings of a rerun, its checks, and the run itself
command.py      `ropewalk reproduce` and its three answers
pack.py         `ropewalk pack`
"""
