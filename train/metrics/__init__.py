"""What a training tells of itself: gathered by every rank (seen.py), written by rank 0 (sinks.py)."""

from ropewalk.train.metrics.dashboards import refuse_missing
from ropewalk.train.metrics.seen import Seen
from ropewalk.train.metrics.sinks import Metrics, lines, peak_memory_bytes

__all__ = ["Metrics", "Seen", "lines", "peak_memory_bytes", "refuse_missing"]
