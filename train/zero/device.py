""""""

import os
from datetime import timedelta

import deepspeed
import torch
from torch.distributed import distributed_c10d as c10d

# Of a collective, by which torch would end the run without a name. Who hangs is found sooner (train.hang_s), and some waits are long and
# right: for rank 0, which alone writes a large model.
COLLECTIVE_TIMEOUT = timedelta(days=1)


def start_distributed() -> None:
    """Join the process group. gloo's own collectives are used on CPU, so that nothing has to be compiled."""
    cuda = torch.cuda.is_available()
    if not cuda:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # of this group, and of those that DeepSpeed makes without saying one
    c10d.default_pg_timeout = c10d.default_pg_nccl_timeout = COLLECTIVE_TIMEOUT
    deepspeed.init_distributed(
        dist_backend="nccl" if cuda else "gloo", verbose=False, timeout=COLLECTIVE_TIMEOUT
    )
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def device() -> torch.device:
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
