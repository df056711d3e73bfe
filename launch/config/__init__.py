"""From the command line to one checked `Config`.

compose.py       the words of a command line to `Config`, or an error that lists every problem
overrides.py     one word, `key=value`, to the value that the setting's type asks for
values.py        the grammar of values, and their conversion to declared types
files.py         a user's own recipe and the like: each problem with file, line and way out
hydra.py         registers the dataclasses and composes; the only file that runs Hydra
finished_run.py  the training settings of a finished run, for eval
only_models.py   what eval needs that measures other models alone
phases.py        the settings of each phase, on top of the run's
phase_words.py   `phases.*.KEY=VALUE` and a phase's mixture, put into the phases
"""
