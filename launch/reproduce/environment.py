"""What of a machine changes numbers: torch's build, hardware, threads, variables, flags."""

import hashlib
import os
import platform
import re
from functools import cache
from typing import Any

from ropewalk.conf.schema import Config
from ropewalk.launch.environment import gpus, shown, system
from ropewalk.launch.reproduce.code import code
from ropewalk.launch.reproduce.packages import lock, packages
from ropewalk.launch.reproduce.settings import LEFT_OUT, OF_USER
from ropewalk.train.launcher.command import ranks_per_node
from ropewalk.train.torch_build import torch_build

VARIABLES = re.compile(
    r"(CUBLAS|CUBLASLT|CUDNN|NVIDIA_TF32|PYTORCH_\w*ALLOC_CONF|PYTORCH_ALLOC_CONF|TORCHINDUCTOR_"
    r"|TORCH_ALLOW_TF32|TORCH_BLAS|TORCH_COMPILE|TORCHDYNAMO_DISABLE|TRITON_F32|FLASH_ATTENTION"
    r"|OMP_|GOMP_|KMP_|MKL_|OPENBLAS_|VECLIB_|BLIS_|ONEDNN_|DNNL_|ATEN_"
    r"|CUDA_LAUNCH_BLOCKING|CUDA_MODULE_LOADING|PYTHONHASHSEED|ROPEWALK_"
    r"|NCCL_(ALGO|PROTO|NTHREADS|M\w+_NCHANNELS|M\w+_CTAS|NVLS_ENABLE|COLLNET_ENABLE|P2P_\w*|SHM_\w*"
    r"|IB_DISABLE|NET_GDR\w*|NET|BUFFSIZE|TOPO_DUMP|GRAPH_\w*)$).*"
)
"""Those that choose kernels, threads, the order of sums, or the precision of products."""
FOLDERS = re.compile(r".*(_DIR|_PATH|_HOME|_ROOT|_FILE)$")
"""Variables that say where something lies, and change no number."""


@cache
def binding() -> dict[str, Any]:
    """Code, packages, torch, hardware and variables of this process."""
    installed = packages()
    return {
        "code": code(),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "packages": installed,
        "lock_sha256": hashlib.sha256(lock(installed).encode()).hexdigest(),
        "torch": torch_text(),
        "hardware": hardware(),
        "variables": variables(),
    }


def torch_text() -> dict[str, Any]:
    """torch's build: CUDA or ROCm, cuDNN, NCCL, its commit, and its CPU kernels."""
    import torch
    import torch.distributed as dist

    build = torch_build()
    has_nccl = dist.is_available() and dist.is_nccl_available()
    return {
        "version": str(torch.__version__),
        "git": build.git_version if build else "",
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def hardware() -> dict[str, Any]:
    """Processor, cores, GPUs and their driver; nothing that identifies the host."""
    import torch

    count = torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.system(),
        "processor": system.processor(),
        "cores": cores,
        "gpus": [torch.cuda.get_device_name(number) for number in range(count)],
        "driver": gpus.listed().driver if count else None,
    }


def variables() -> dict[str, str]:
    """The variables that are set and change numbers; `PATH` for a folder's value."""
    result = {}
    for name, text in sorted(os.environ.items()):
        if VARIABLES.fullmatch(name) and not FOLDERS.fullmatch(name):
            result[name] = LEFT_OUT if OF_USER.fullmatch(text) else shown.value(name, text)
    return result


def mesh(config: Config) -> dict[str, Any]:
    """How the work of a step is divided, which decides the order of its sums."""
    train = config.train
    ranks = ranks_per_node(config)
    return {
        "ranks_per_node": ranks,
        "several_hosts": train.launcher.hostfile is not None,
        "sp_size": train.sp_size,
        "zero_stage": train.zero_stage,
        "threads_of_a_rank": threads(ranks),
        "deterministic": train.deterministic,
    }


def threads(ranks: int) -> str:
    """As a rank sets them: OMP_NUM_THREADS, else its share of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return os.environ.get("OMP_NUM_THREADS") or str(max(1, (cores or 1) // ranks))


def seeds(config: Config) -> dict[str, int]:
    """Every random number is drawn from a stream of this seed, a purpose and a step."""
    return {"seed": config.seed}
