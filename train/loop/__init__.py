"""The training loop of one rank.

trainer.py        the loop: steps, checkpoints, rollback, stop
step.py           one optimizer step, and what `seed` drives in it
micro_batches.py  this rank's micro-batches of a step
stability.py      the policy for NaN losses and loss spikes
validation.py     held-out loss and retrieval while training
key_value.py      JSON key-value retrieval while training
dealing.py        rows of a measurement dealt to the ranks
validation_inputs.py  its windows and haystacks
validation_cost.py    how often it may run, by FLOPs
watchdog.py       a thread that ends a run in which a rank hangs or died
progress.py       how far a rank is, and which ranks the others wait for
profiler.py       a window of steps under torch's profiler
"""
