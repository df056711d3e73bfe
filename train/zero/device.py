"""The process group and the device of this rank."""

import os
from datetime import timedelta

import deepspeed
import torch
from torch.distributed import distributed_c10d as c10d

# After its default of 10 minutes torch would end a run without naming a rank, or while rank 0 alone
# writes a large model. loop/watchdog.py finds a rank that hangs sooner (train.launcher.hang_timeout_s).
COLLECTIVE_TIMEOUT = timedelta(days=1)


def start_distributed() -> None:
    """Join the process group.

    On CPU gloo's own collectives are used, so that nothing is compiled.
    """
    cuda = torch.cuda.is_available()
    if not cuda:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # for this group, and for those that DeepSpeed makes without a timeout
    c10d.default_pg_timeout = c10d.default_pg_nccl_timeout = COLLECTIVE_TIMEOUT
    deepspeed.init_distributed(
        dist_backend="nccl" if cuda else "gloo", verbose=False, timeout=COLLECTIVE_TIMEOUT
    )
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def device() -> torch.device:
    """This rank's device."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
