"""`ropewalk plan`: whether a training fits its GPUs, how long it takes, and what would make it fit.

ask.py       from a configuration to a child that traces, and back: the settings of each question
__main__.py  the child: configurations in, forecasts out
forecast.py  one configuration on one kind of hardware: memory, host, disk, time, communication
traces.py    each distinct step traced once
seconds.py   the time of a step as a range, from counts and the hardware file's rates
correction.py  what a real step of `ropewalk check` measured beside its plan
verdict.py   fits, does not fit, or too close to say
price.py     what the GPU-hours cost
bounds.py    what a configuration needs at the least, without a trace
search.py    the cheapest changes that make it fit, each traced again
command.py   the verb: one answer, or a table
text.py      what is printed
page.py      the page with the memory of one step over time

The step that is traced is the one that trains (train/trace); the counts are those of train/cost.
"""
