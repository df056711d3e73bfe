"""The interval of a share, which training and evaluation measure alike. Pure."""

import math

Z = 1.959964
"""Of 95%, two-sided."""


def wilson(hits: float, n: float) -> tuple[float, float]:
    """95% interval of a proportion (Wilson 1927)."""
    centre, spread = hits + Z * Z / 2, Z * math.sqrt(hits * (n - hits) / n + Z * Z / 4)
    return max(0.0, (centre - spread) / (n + Z * Z)), min(1.0, (centre + spread) / (n + Z * Z))
