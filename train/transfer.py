"""Copies from host memory to the device that the host does not wait for."""

import numpy as np
import torch


def copy_to_device(host: np.ndarray | torch.Tensor, target: torch.device) -> torch.Tensor:
    """`host` on `target`, queued behind the work already there; any shape and dtype.

    CUDA copies from pinned memory by itself. A copy from pageable memory makes the host wait,
    with `non_blocking` too (CUDA's runtime API, "API synchronization behavior").
    """
    tensor = torch.from_numpy(host) if isinstance(host, np.ndarray) else host
    if target.type == "cpu":
        return tensor.to(target)
    return tensor.pin_memory().to(target, non_blocking=True)
