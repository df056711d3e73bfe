"""Document lengths -> sequences of pieces, and the plan on disk.

window_fill.py  Packed; the default packer, which fills sequences from a window of documents
packers.py      best_fit, concat, single; PACKERS: all packers by name
plan.py         build a plan, write and read plan.arrow, describe it
"""
