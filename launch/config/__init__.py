"""From the command line to one checked `Config`.

compose.py  overrides to `Config`, or an error that lists every problem
hydra.py    registers the dataclasses and composes; the only file that runs Hydra
explain.py  finds every wrong override and describes it in one line
phases.py   the settings of each phase, on top of the run's
"""
