"""How models are measured. The tasks in eval/tasks/ say what is measured.

columns.py  the models of a run, each with its rope plan
named.py    the models of `eval.models`, located, with their plans
inputs.py   the columns of an evaluation, and what each is asked
evaluate.py  every column measured in turn
cost.py     tokens and seconds of each column, told before and after
progress.py  the time left over all columns
engines.py  the engine that measures a column
forward.py  requests of a column to results, from the store or by forward passes
results.py  the content of results.json, and the samples beside it
other_tokenizer.py  held-out text for a model with another tokenizer
suite.py    the inputs shared by all tasks, and the loops over the tasks
store.py    results on disk, by the content of their request
dealing.py  passes dealt over the ranks
loss_rows.py  rows of mean losses over documents of unequal length
statistics.py  means, intervals, bins; pure numpy
proportions.py intervals of shares of right answers, of clusters and of pairs
positions.py   answers by depth: fifths, primacy, recency, worst depth
effective_length.py  the longest context with a score near that of the base window
student.py     Student's t distribution
answers.py     the five questions, from the gates
gates.py       pass, fail or undecided, of an interval beside a tolerance
"""
