"""From the command line to one checked `Config`.

- `compose`: the entry: overrides to `Config`, or an error that lists every problem
- `hydra`: registers the dataclasses and composes; the only file that runs Hydra
- `explain`: finds every wrong override and describes it in one line
- `phases`: the settings of each phase, on top of the run's
"""
