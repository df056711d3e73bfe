"""The stage contract: how a stage writes its folder, and who may write it.

manifest.py   manifests, `run_stage`: skip, redo, set aside, bring back
workspace.py  the folder that a stage writes to until it is finished
verify.py     whether a finished stage's files are the ones that it wrote
records.py    JSON files: fingerprints, written whole, signed with a digest
digests.py    the content of files, as sha256, each file read once
locks.py      one process at a time in a run's folder or a part of the cache
folders.py    whether a folder can be made and written, and what is no folder's name
disk.py       a full, read-only or broken disk as one line of error
free_space.py whether what will be written fits
"""
