"""How models are measured. The tasks in eval/tasks/ say what is measured.

suite.py    the inputs shared by all tasks, and the loops over the task registry
score.py    forward passes: token losses, greedy answers; the only part that needs torch
statistics.py  means, intervals, bins; pure numpy
"""
