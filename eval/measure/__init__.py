"""How models are measured. The tasks in eval/tasks/ say what is measured.

columns.py  the models of a run, each loaded and measured in turn: the content of results.json
suite.py    the inputs shared by all tasks, and the loops over the tasks
score.py    the engine: losses of texts, answers to prompts
store.py    results on disk, by the content of their request
dealing.py  passes dealt over the ranks
statistics.py  means, intervals, bins; pure numpy
"""
