"""A training step traced on an accelerator that does not exist, on a machine without a GPU.

child.py           `trace_in_child`: a plan in, its trace out, in a process of its own
plan.py            StepPlan, StepTrace, and the errors of a step
__main__.py        the child: JSON in, JSON out
step.py            the step: the model, its loss, its optimizer, as a rank runs them
layers.py          the model without storage, and where its layers begin
result.py          from the events of two steps to the trace of the second
events.py          what happens in memory, in order; the peak, by what is held
unroll.py          from the events of a few layers to those of all
zero_events.py     what DeepSpeed's engine allocates around them: states, gathered weights, buckets
allocator.py       torch's caching allocator replayed: what is reserved, native and expandable
lint.py            what is wrong with a traced step
whole_adamw.py     gradients and states without ZeRO
tracer.py          the dispatch mode: host tensors real, device tensors fake, each crossing seen
rules.py           which operations make the host wait for the device
live_bytes.py      writes the events down
flops.py           FLOPs by operation; what kernels allocate inside
accelerator.py     the accelerator, registered with torch from Python

What the trace sees: shapes, dtypes, every allocation and its end, matrix products and attention,
tensors of the host among the device's (in a custom operation too), reads and copies that make the
host wait, unpinned copies to the device among them.

What it cannot see: what one kernel does inside (its workspace is added by formula for the varlen
kernel alone), the time that anything takes, streams and their order, DeepSpeed's engine (its rules
are followed in zero_events.py, its collectives counted by arithmetic), values: all that is read is
1, and of what is selected all. Whether attention is kept is decided as on the device where the
plan names its memory. Fused kernels of torch.compile and 4-bit weights are not traced.
"""
