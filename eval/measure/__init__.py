"""How models are measured. The tasks in eval/tasks/ say what is measured.

columns.py  the models of a run, each loaded and measured in turn: the content of results.json
suite.py    the inputs shared by all tasks, and the loops over the task registry
score.py    forward passes: token losses, greedy answers
dealing.py  passes dealt over the ranks
statistics.py  means, intervals, bins; pure numpy
"""
