"""The command line: compose the settings, check them, freeze them, run the stages.

cli.py        `main` and the action of each verb
verbs.py      the verbs that run no stage
arguments.py  verbs, flags, help
output.py     what a verb prints at its end
nodes.py      the same command on several machines: the first leads, the others start ranks
torchrun.py   `launch=torchrun`
rank_variables.py  variables that ranks get unless the user set them
interrupt.py  Ctrl-C, within seconds
sweep/       `--multirun`: several runs of one command
config/       command line to `Config`; nothing outside it imports Hydra
check/        `ropewalk check`: a self-test of the machines and the ranks' numbers
cluster/      Slurm, Kubernetes, SkyPilot: submit or write, and a job's attempts
plan/         `ropewalk plan`
compare/      `ropewalk compare`: several runs in one table and one page
reproduce/    what a manifest binds, `ropewalk reproduce` and `ropewalk pack`
recipes/      `ropewalk recipes`: the field's recipes, their cards, costs and twins
runs/         the runs of a folder: what stands where
environment/  this machine, for a bug report
pipeline/     the stages of a run, in order

Heavy libraries are imported inside functions, so that `--help` and refusals come at once.
"""
