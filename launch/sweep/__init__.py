"""`--multirun`: several runs of one command.

grid.py   every combination of `key=a,b`, each under a name of its own
jobs.py   a job, its outcome, and what a pool of them is
local.py  jobs as processes of this machine, some at once
process.py  the process of one job
preloaded.py  what that process has from its server, imported once
"""
