"""A training step traced on an accelerator that does not exist, on a machine without a GPU.

child.py           `trace_in_child`: a plan in, its trace out, in a process of its own
plan.py            StepPlan, StepTrace, and the errors of a step
__main__.py        the child: JSON in, JSON out
step.py            the step: the model, its loss, its optimizer, as a rank runs them
sharded_adamw.py   ZeRO's gradients and states of one rank: their sizes and lifetimes
tracer.py          the dispatch mode: host tensors real, device tensors fake, each crossing seen
rules.py           which operations make the host wait for the device
live_bytes.py      bytes that are alive, by what they hold, and their peak
flops.py           FLOPs by operation; what kernels allocate inside
accelerator.py     the accelerator, registered with torch from Python

What the trace sees: shapes, dtypes, every allocation and its end, matrix products and attention,
tensors of the host among the device's (in a custom operation too), reads and copies that make the
host wait, unpinned copies to the device among them.

What it cannot see: what one kernel does inside (its workspace is added by formula for the varlen
kernel alone), the caching allocator's fragments, the time that anything takes, streams and their
order, DeepSpeed's engine (its buckets, gathered parameters and collectives; they are counted by
arithmetic, and a whole model's parameters as if they lay on the device at ZeRO 3 too), values: all
that is read is 1, and of what is selected all. `train.memory.keep_attention` has effect where it
is set: no device's memory is known from which to decide. Host memory for offloaded states, adapters
and torch.compile are not traced.
"""
