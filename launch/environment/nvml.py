"""`python -m ropewalk.launch.environment.nvml`: the GPUs by nvidia-ml-py, as one line of JSON.

In a process of its own: a call into a broken driver does not come back.
"""

import json
from typing import Any

FUNCTIONS = {
    "nvmlInit": (),
    "nvmlSystemGetDriverVersion": (),
    "nvmlDeviceGetCount": (),
    "nvmlDeviceGetHandleByIndex": ("index",),
    "nvmlDeviceGetName": ("handle",),
    "nvmlDeviceGetMemoryInfo": ("handle",),
    "nvmlDeviceGetCudaComputeCapability": ("handle",),
    "nvmlDeviceGetUUID": ("handle",),
}
"""What is called of nvidia-ml-py, each with its parameters."""


def answer(pynvml: Any) -> dict[str, Any]:
    """Driver and GPUs (name, bytes, compute capability, UUID); or the library's problem."""
    try:
        pynvml.nvmlInit()
        numbers = range(pynvml.nvmlDeviceGetCount())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in numbers]
        return {
            "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
            "gpus": [
                [
                    _text(pynvml.nvmlDeviceGetName(handle)),
                    int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                    list(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
                    _text(pynvml.nvmlDeviceGetUUID(handle)),
                ]
                for handle in handles
            ],
        }
    except pynvml.NVMLError as error:
        return {"problem": f"nvidia-ml-py: {error}"}


def _text(value: str | bytes) -> str:
    """Its older versions return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


if __name__ == "__main__":
    import pynvml

    print(json.dumps(answer(pynvml)))
