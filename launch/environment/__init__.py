"""`ropewalk env`: what a bug report needs of this machine, within a second; torch is not imported.

report.py    the sections, as rows, for a terminal and as JSON
answers.py   questions that may never be answered, each with a limit
shown.py     values without keys, passwords and the user's name
system.py    system, processor, memory, limits
packages.py  Ropewalk, torch's build, the packages that it needs, extras
gpus.py      the driver's GPUs
nvml.py      nvidia-ml-py in a process of its own
kernels.py   which attention kernels can be used, and why others cannot
disks.py     caches and folders: where, on which file system, with how much room
probe.py     `--probe`: what only torch can say, in a process of its own
"""
