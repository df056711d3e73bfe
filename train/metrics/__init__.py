"""Per-step metrics: measured on every rank, reduced once a step, written by rank 0.

step_metrics.py  the numbers and times of one step, as a line of metrics.jsonl
sums.py          losses by position and source, gradient norms, the step's one all-reduce
writers.py       metrics.jsonl, the progress bar and plain lines
dashboards.py    wandb, TensorBoard, trackio and mlflow behind one protocol
wandb_run.py     the wandb run, offline where no server answers
trackio_run.py   the trackio run
mlflow_run.py    the mlflow run
"""

from ropewalk.train.metrics.dashboards import import_dashboards, refuse_missing_trackers
from ropewalk.train.metrics.step_metrics import StepMetrics
from ropewalk.train.metrics.writers import MetricLogger, read_metrics

__all__ = [
    "MetricLogger",
    "StepMetrics",
    "import_dashboards",
    "read_metrics",
    "refuse_missing_trackers",
]
