"""The stages of one run.

order.py      the stages of each verb, and their folders
stages.py     the adapter of each stage
run.py        `Run`, one run in progress
preflight.py  every check that is possible before the first long stage, and their problems at once
disk_space.py whether the disks have room for what will be written
current.py    which finished results still belong on the page
standing.py   the training that stands, and what a command may change beside it
unchanged.py  a command that has nothing to do, without torch
versions.py   packages and code that affect results
record.py     the run's own `manifest.json`
ship.py       keeps a run's model as the builtin base of the demo
"""
