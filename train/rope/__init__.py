"""The scaling stage: plan -> config before construction -> proof on the live model.

model_config.py   the rotary tables that a model's config describes
plan.py           the rope plan, the content of `rope.json`
lint.py           warnings about a plan that works and may disappoint
stage.py          writes `rope.json`
table.py          the plan as text
proof.py          holds a live model against the plan
probe.py          the part of the proof that runs the model: queries and keys of every layer
mixed_windows.py  the base's table for short documents, the plan's for long ones
"""
