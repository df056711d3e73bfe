"""What is trained, by which optimizer, at which learning rate.

param_groups.py  which parameters are trained, decay, and at what learning rate, by name
schedule.py      the learning rate of a step
optimizer.py     AdamW by name
"""
