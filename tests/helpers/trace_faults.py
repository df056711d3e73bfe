"""A program: traces a step of a small Llama with one fault after the other; prints what happens.

A line for each: the fault, the error's kind, its message.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
from transformers.models.llama.modeling_llama import LlamaMLP

from ropewalk.train.trace.plan import StepPlan, TraceError
from ropewalk.train.trace.step import trace_step

SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}


def item(x: torch.Tensor) -> torch.Tensor:
    return x * x[0, 0, 0].item()


def branch(x: torch.Tensor) -> torch.Tensor:
    return x if x.isfinite().all() else x * 2


def mask(x: torch.Tensor) -> torch.Tensor:
    return x + x[x > 0].sum()


def list_to_device(x: torch.Tensor) -> torch.Tensor:
    return x * torch.tensor([2.0], device=x.device)


def pageable_copy(x: torch.Tensor) -> torch.Tensor:
    return x * torch.ones(64).to(x.device, non_blocking=True)


def index_on_host(x: torch.Tensor) -> torch.Tensor:
    return x[:, torch.arange(x.shape[1])]


def host_tensor(x: torch.Tensor) -> torch.Tensor:
    return x + torch.ones(64)


def host_cu_seqlens(x: torch.Tensor) -> torch.Tensor:
    """A kernel called past our wrapper: fake tensors do not check a custom operation's devices."""
    q = x[0].unflatten(1, (4, 16)).bfloat16()
    borders = torch.tensor([0, x.shape[1]], dtype=torch.int32)
    size = x.shape[1]
    out = torch.ops.torch_attn._varlen_attn(q, q, q, borders, borders, size, size, True)
    return x + out[0].flatten(1)[None].to(x.dtype)


def none(x: torch.Tensor) -> torch.Tensor:
    return x * 2


FAULTS = [
    none,
    item,
    branch,
    mask,
    list_to_device,
    pageable_copy,
    index_on_host,
    host_tensor,
    host_cu_seqlens,
]


def outcome(fault: Callable[[torch.Tensor], torch.Tensor]) -> list[str]:
    original: Any = LlamaMLP.forward
    LlamaMLP.forward = lambda self, x: original(self, fault(x))  # type: ignore[method-assign]
    try:
        trace_step(StepPlan(model=SMALL, documents=(48, 16), train={"precision": "bf16"}))
    except TraceError as error:
        return [fault.__name__, type(error).__name__, str(error)]
    finally:
        LlamaMLP.forward = original  # type: ignore[method-assign]
    return [fault.__name__, "", ""]


if __name__ == "__main__":
    for fault in FAULTS:
        print(json.dumps(outcome(fault)))
