"""The stage contract: how a stage writes its folder, and who may write it.

manifest.py  fingerprints, `run_stage`: skip, redo, set aside, bring back
locks.py     one process at a time in a run's folder or a part of the cache
digests.py   the content of files, as sha256, each file read once
folders.py   whether a folder can be made and written, and what is no folder's name
disk.py      a full disk as one line of error
"""
