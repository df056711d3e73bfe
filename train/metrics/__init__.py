"""What a training tells of itself: gathered by every rank (seen.py), written by rank 0 (sinks.py)."""

from ropewalk.train.metrics.dashboards import refuse_missing
from ropewalk.train.metrics.step_metrics import StepMetrics
from ropewalk.train.metrics.writers import MetricLogger, peak_memory_bytes, read_metrics

__all__ = ["MetricLogger", "StepMetrics", "read_metrics", "peak_memory_bytes", "refuse_missing"]
