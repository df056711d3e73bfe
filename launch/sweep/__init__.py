"""`--multirun`: several runs of one command.

chosen.py the words of a command, apart: the sweep's settings, and what its runs have
grid.py   every combination of `key=a,b`, each under a name of its own
runs.py   the runs with their settings, checked; tables that are searched before some of them
shared_data.py  tokens and plans that several runs read, made once
before.py which runs are done, and the preflight of the others
naming.py the sweep's name, and its baseline
jobs.py   a job, its outcome, and what a pool of them is
pools.py  the pool that `launch` chooses, and each run's share of a machine
local.py  jobs as processes of this machine, some at once
process.py  the process of one job
preloaded.py  what that process has from its server, imported once
runner.py the sweep from its words to its comparison
record.py sweep.json
search.py `sweep=search`: trials in rounds
search_plan.py  a search before its first trial, checked
search_end.py   its trials in the record, and printed
pruning.py  trials that are given up are asked to stop
space.py  what a search varies
objective.py  the number that it optimises
study.py  Optuna's study, and what is proposed next
watch.py  how far the runs are, and the time left
"""
