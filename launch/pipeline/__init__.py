"""The stages of one run.

- `stages`: which stages a verb needs, and the adapter of each
- `run`: `Run`, one run in progress
- `preflight`: refusals that are possible before a stage starts
- `current`: which finished results still belong on the page
- `record`: the run's own `manifest.json`
- `ship`: keeps a run's model as the builtin base of the demo
"""
