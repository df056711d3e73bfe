"""The scaling stage: plan -> config before construction -> proof on the live model.

model_config.py   the rotary tables of a model, read from its config
parameters.py     `rope_parameters` of transformers -> table
plan.py           the rope plan, the content of `rope.json`
table_file.py     a table from a file, held against the base
lint.py           warnings about a plan that works and may disappoint
stage.py          writes `rope.json`
table.py          the plan as text
proof.py          holds a live model against the plan: tables, cos and sin
layer_proof.py    the same for the queries and keys of every layer
probe.py          runs the model to record them
mixed_windows.py  the base's table for short documents, the plan's for long ones
"""
