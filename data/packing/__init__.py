"""Document lengths -> sequences of pieces, and the plan on disk.

packed.py       what packers take and give: Stretches, Packed
window_fill.py  the default packer, which fills sequences from a window of documents
window.py       that window: the documents that wait, sorted by length
packers.py      best_fit, concat, single; PACKERS: all packers by name
build.py        takings in mixed order -> sequences, block by block
plan.py         write and read plan.arrow, describe it
"""
