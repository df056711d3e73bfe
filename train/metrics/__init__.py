"""Per-step metrics: measured on every rank, reduced once a step, written by rank 0.

step_metrics.py  the numbers of one step, as a line of metrics.jsonl
timer.py         where a step's time goes
buckets.py       losses by position and by source, and the step's one all-reduce
grad_norms.py    gradient norms by group of parameters
writers.py       metrics.jsonl, the progress bar and plain lines
dashboards.py    wandb and TensorBoard
"""

from ropewalk.train.metrics.dashboards import refuse_missing_tensorboard
from ropewalk.train.metrics.step_metrics import StepMetrics
from ropewalk.train.metrics.writers import MetricLogger, read_metrics

__all__ = ["MetricLogger", "StepMetrics", "read_metrics", "refuse_missing_tensorboard"]
