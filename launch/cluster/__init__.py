"""Runs on a cluster: what is submitted or written, and what a job does about its attempts.

command.py     check, then submit to Slurm, or write the files for Kubernetes and SkyPilot
words.py       the command of a job, in the words that were typed
variables.py   the environment of a job
script.py      the batch script of a Slurm job, by submitit
submission.py  the batch scripts of one command, and their order
queue.py       Slurm's commands and their answers
slurm.py       `launch=slurm`: submit, and follow
follow.py      what a job prints and how its state changes, until it ends
pool.py        jobs of a sweep, as arrays
job.py         a command within a Slurm job: recorded, guarded, queued again
attempts.py    the record of each attempt, in the run's folder
guard.py       whether a job that starts again may go on
kubernetes.py  manifests: a TrainJob and a JobSet
skypilot.py    a task of SkyPilot
"""
