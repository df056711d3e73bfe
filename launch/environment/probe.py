"""`python -m ropewalk.launch.environment.probe`: what only torch can say, as one line of JSON."""

import json


def answers() -> dict[str, str]:
    """By the name of the row. Imports torch and the packages of the attention kernels."""
    import torch

    return {**_torch(), **_devices(torch.cuda.is_available()), **_kernels()}


def _torch() -> dict[str, str]:
    import torch
    import torch.distributed as dist

    found = {"gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available()}
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    # the architectures of the build; torch.cuda.get_arch_list is empty without a GPU
    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)() or ""
    return {
        "torch imported": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "torch CPU kernels": torch.backends.cpu.get_cpu_capability(),
        "torch architectures": flags or "none",
        "torch cuDNN": "none" if cudnn is None else str(cudnn),
        "torch NCCL": ".".join(map(str, torch.cuda.nccl.version())) if found["nccl"] else "none",
        "torch process groups": ", ".join(name for name, here in found.items() if here) or "none",
    }


def _devices(available: bool) -> dict[str, str]:
    import torch

    if not available:
        return {"torch GPUs": "none: torch.cuda.is_available() is False"}
    rows = {"torch GPUs": str(torch.cuda.device_count())}
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        memory = f"{device.total_memory / 2**30:,.1f} GiB"
        capability = f"compute capability {device.major}.{device.minor}"
        rows[f"torch GPU {number}"] = f"{device.name}, {memory}, {capability}"
    return rows


def _kernels() -> dict[str, str]:
    from ropewalk.launch.environment.kernels import USABLE
    from ropewalk.train.attention import backend
    from ropewalk.train.attention.kernels import GPU_KERNELS
    from ropewalk.train.attention.support import Requirements

    fitting = Requirements()
    rows = {
        f"kernel {name}": backend.why_unavailable(kernel, fitting) or f"{USABLE} (loaded)"
        for name, kernel in GPU_KERNELS.items()
    }
    chosen, reason = backend.select_backend("auto", fitting)
    return {**rows, "kernel sdpa": USABLE, "kernel auto": f"takes {chosen} ({reason})"}


if __name__ == "__main__":
    print(json.dumps(answers()))
